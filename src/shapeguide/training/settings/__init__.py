"""Settings of a training: frozen, checked, saved with the run."""
