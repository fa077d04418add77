"""What every other part stands on: forks, signals, exits, threads and locks."""
