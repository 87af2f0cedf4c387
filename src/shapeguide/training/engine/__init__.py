"""Iterate, validate, save, resume; nothing here knows a task."""
