"""``otel-dllogger run``."""
