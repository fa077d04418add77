"""A database for what has to be sorted and may not fit into memory."""

from __future__ import annotations

import sqlite3

# SQLite opens the file of a database without a name when its cache is full, and unlinks it at
# once: it is gone with the process, however that ends. Nothing in it is ever rolled back.
_SETTINGS = """
PRAGMA journal_mode = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -{cache_kib};
{tables}
BEGIN;
"""


def open_scratch(tables: str, *, memory_bytes: int) -> sqlite3.Connection:
    """Open an empty database, which is gone once it is closed.

    What exceeds the memory goes into SQLite's folder for temporary files: ``TMPDIR``, else
    ``/var/tmp``.

    Args:
        tables: Creates its tables, SQL.
        memory_bytes: Bytes that it holds in memory.
    """
    # Rows may be taken by one thread after another, as in a notebook; never by two at once.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.executescript(_SETTINGS.format(cache_kib=max(memory_bytes >> 10, 1), tables=tables))
    return database


def describe_full_disk(error: sqlite3.Error) -> str:
    """Return what to do if the database cannot take more, or not be read, in one line.

    Args:
        error: What SQLite says.
    """
    return (
        f"the folder for temporary files cannot hold what does not fit in memory ({error}): make "
        "room there, or name another folder with TMPDIR"
    )
