"""Count what is unusual about followed files, by reason; nothing is printed here.

A bridge follows other people's files for weeks. Whatever is odd about one of them is only
counted, and a state that lasts counts once, not once per poll.
"""

from __future__ import annotations

from otel_dllogger.diagnostics import FILE, PERMISSION_DENIED, REASONS, UNREADABLE


class FileAnomalies:
    """Counts of what is unusual, by reason.

    Attributes:
        counts: How often, by reason.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(REASONS[FILE], 0)
        self._now: set[tuple[str, str]] = set()
        self._before: set[tuple[str, str]] = set()

    def count(self, reason: str, count: int = 1) -> None:
        """Count what happened.

        Args:
            reason: One of ``REASONS[FILE]``.
            count: How often.
        """
        self.counts[reason] += count

    def note(self, path: str, reason: str) -> None:
        """Count a state of a path: once, and again only after a round without it.

        Args:
            path: What is in this state.
            reason: One of ``REASONS[FILE]``.
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
        """Forget the states that were not noted in this round."""
        self._before, self._now = self._now, set()
