"""Runs on a terminal: lines of text that fit it, and the screen that shows them."""
