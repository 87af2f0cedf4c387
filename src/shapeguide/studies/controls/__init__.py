"""What the paper's table 1 means: its shape network with controls, and without any network."""
