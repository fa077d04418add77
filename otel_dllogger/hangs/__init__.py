"""Evidence of hangs: where all threads stand, once a rank has logged nothing for too long."""
