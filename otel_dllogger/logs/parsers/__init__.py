"""Lines of logs that others wrote, one module per format."""
