"""The HTTP server of a rank, and how Prometheus finds it."""
