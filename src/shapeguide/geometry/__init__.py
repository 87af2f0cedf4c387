"""Grids, volumes and label maps in world space (mm, RAS+), and how to move them."""
