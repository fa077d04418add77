"""Benchmarks of logging, as ratios to DLLogger's work, measured in one interleaved run."""
