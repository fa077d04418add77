"""Metrics: the last values of series, their names and labels, and how they are exported."""
