"""Past runs as series with the times of their steps, for databases of several kinds."""
