"""Overlap and surface metrics, scores per case and structure, paired comparison."""
