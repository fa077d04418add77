"""Logs that others wrote, as records."""
