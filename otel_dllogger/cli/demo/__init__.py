"""``otel-dllogger demo``."""
