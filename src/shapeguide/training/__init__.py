"""Settings, the training loop and the two stages."""
