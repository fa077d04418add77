"""Growing files, followed: whole lines, each with its offset."""
