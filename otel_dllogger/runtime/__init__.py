"""The foundation of all other parts: forks, signals, exits, threads, locks and small files."""
