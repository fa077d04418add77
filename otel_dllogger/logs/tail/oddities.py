"""What is unusual about followed files: counted by reason, and said by nobody here.

A bridge follows other people's files for weeks. What is odd about one of them becomes a
number, and a state that lasts counts once, not once a poll.
"""

from __future__ import annotations

TRUNCATED = "truncated"
REWRITTEN = "rewritten"
INODE_REUSED = "inode_reused"
REPEATED = "repeated"
LINE_TOO_LONG = "line_too_long"
NUL_FILLED = "nul_filled"
PARTIAL_LINE_LOST = "partial_line_lost"
UNREAD_LOST = "unread_lost"
PERMISSION_DENIED = "permission_denied"
UNREADABLE = "unreadable"
NOT_REGULAR = "not_regular"
LINK_OUTSIDE = "link_outside"
LINK_BROKEN = "link_broken"
HARD_LINK = "hard_link"
PATH_MISSING = "path_missing"
FILE_LIMIT = "file_limit"
DESCRIPTOR_LIMIT = "descriptor_limit"
CHECKPOINT_CORRUPT = "checkpoint_corrupt"
CHECKPOINT_FOREIGN = "checkpoint_foreign"
CHECKPOINT_VERSION = "checkpoint_version"
CHECKPOINT_UNREADABLE = "checkpoint_unreadable"
CHECKPOINT_ENTRY = "checkpoint_entry"
CHECKPOINT_FAILED = "checkpoint_failed"

REASONS = {
    TRUNCATED: "a file became shorter than what was read of it: it is read from 0",
    REWRITTEN: "other bytes stand where lines were read: the file is read from 0",
    INODE_REUSED: "a new file has the inode of one that is gone: it is read from 0",
    REPEATED: "files with lines that were counted before, as an older copy of a log has them",
    LINE_TOO_LONG: "lines beyond the limit of bytes, passed over",
    NUL_FILLED: "runs of NUL bytes before a line, passed over",
    PARTIAL_LINE_LOST: "files that went with half a line at their end",
    UNREAD_LOST: "files that were deleted before all of them was read",
    PERMISSION_DENIED: "files or folders that may not be read",
    UNREADABLE: "files or folders that cannot be read, for another reason",
    NOT_REGULAR: "pipes, sockets and devices where a file was looked for",
    LINK_OUTSIDE: "symbolic links that leave the watched folder: not followed",
    LINK_BROKEN: "symbolic links that lead nowhere",
    HARD_LINK: "second names of a file that is followed under another one",
    PATH_MISSING: "paths that were asked for and are not there",
    FILE_LIMIT: "files beyond the limit of files: not followed",
    DESCRIPTOR_LIMIT: "opens that the process's limit of descriptors refused",
    CHECKPOINT_CORRUPT: "checkpoints that are not JSON, or empty: files are read from 0",
    CHECKPOINT_FOREIGN: "checkpoints that something else wrote: files are read from 0",
    CHECKPOINT_VERSION: "checkpoints of another version: files are read from 0",
    CHECKPOINT_UNREADABLE: "checkpoints that could not be read: files are read from 0",
    CHECKPOINT_ENTRY: "entries of a checkpoint that make no sense here: left out",
    CHECKPOINT_FAILED: "checkpoints that could not be written",
}
"""The reasons, each with what it counts; every one exists at 0 from the start."""


class Oddities:
    """Count what is unusual.

    Attributes:
        counts: How often, by reason.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(REASONS, 0)
        self._now: set[tuple[str, str]] = set()
        self._before: set[tuple[str, str]] = set()

    def count(self, reason: str, count: int = 1) -> None:
        """Count what happened.

        Args:
            reason: One of ``REASONS``.
            count: How often.
        """
        self.counts[reason] += count

    def note(self, path: str, reason: str) -> None:
        """Count a state of a path: once, and again only after a round without it.

        Args:
            path: What is in this state.
            reason: One of ``REASONS``.
        """
        state = (path, reason)
        if state not in self._now:
            self._now.add(state)
            if state not in self._before:
                self.counts[reason] += 1

    def note_error(self, path: str, error: OSError) -> None:
        """Count that a path cannot be read, as ``note`` does."""
        self.note(path, PERMISSION_DENIED if isinstance(error, PermissionError) else UNREADABLE)

    def end_round(self) -> None:
        """Forget the states that nobody noted in this round."""
        self._before, self._now = self._now, set()
