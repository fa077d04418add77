"""What logging costs, as ratios to what DLLogger does, measured in one interleaved run."""
