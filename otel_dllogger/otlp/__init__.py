"""What sends metrics over OTLP: the queue, the points made of it, the requests."""
