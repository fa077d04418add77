"""``otel-dllogger stacks``: where the ranks of this host stand."""
