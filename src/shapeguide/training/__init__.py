"""Settings, the training loop, the prepared cohort and the stages."""
