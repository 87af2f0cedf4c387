"""Prediction on exactly the grid of the input: one volume, or many files."""
