"""The log files of other programs, read as records."""
