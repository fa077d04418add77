"""Backends: one module for each place that a Logger sends its entries to."""
