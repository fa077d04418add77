"""The commands of ``otel-dllogger``, one per file, imported when they are called."""
