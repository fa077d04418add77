"""``otel-dllogger check``."""
