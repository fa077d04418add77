"""``otel-dllogger watch``."""
