"""A folder to put on ``sys.path``: its modules are aliases, see ``aliases.py``."""
