"""Comparisons that run several trainings and report them side by side."""
