"""Send metrics over OTLP: the queue, the data points made from it, and the requests."""
