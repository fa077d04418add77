"""Parsers of log lines that other programs wrote, one module per format."""
