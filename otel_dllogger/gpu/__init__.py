"""The GPU that a rank computes on, found without a call to CUDA."""
