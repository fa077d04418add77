"""The report of past runs: one file for people, or text for pull requests and pipelines."""

FORMAT = "otel-dllogger report"
"""Marks a file as a report, whatever its format."""
