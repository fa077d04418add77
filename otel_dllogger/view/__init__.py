"""One model of runs in memory, and what terminal, live page and report show of it."""
