"""Tail growing files: whole lines, each with its position, and a checkpoint."""
