"""Other programs' logs as live metrics: every rank of a node on one page, and over OTLP."""
