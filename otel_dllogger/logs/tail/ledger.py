"""What was delivered, and what the checkpoint says of it.

Deliver, then save. Only the number of a new generation is saved before its first line is
delivered: so no number is ever given to two contents, whenever we are killed, and equal
positions mean equal lines.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import CHECKPOINT_ENTRY
from otel_dllogger.logs.tail.checkpoint import Checkpoint, format_entry
from otel_dllogger.logs.tail.file_state import FollowedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.tail.anomalies import FileAnomalies
    from otel_dllogger.logs.tail.file_state import Batch
    from otel_dllogger.logs.tail.fingerprint import Key


class Ledger:
    """Know which files the checkpoint must hold anew.

    Args:
        checkpoint: Where to save; None: nowhere.
        files: The followed files, which this fills with those of the checkpoint.
        covers: What tells whether a path is one of those that are followed.
        anomalies: Where to count what is unusual.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        files: dict[Key, FollowedFile],
        *,
        covers: Callable[[str], bool],
        anomalies: FileAnomalies,
    ) -> None:
        self._checkpoint = checkpoint
        self._files = files
        self._touched: dict[Key, FollowedFile] = {}
        self._has_unsaved = False
        self._next_generation = 1
        if checkpoint is None:
            return
        saved = checkpoint.read()
        self._next_generation = saved.next_generation
        for entry in saved.entries:
            # A file under another name is followed only next to where it was found.
            folders = {os.path.dirname(path) for path in (entry.path, entry.origin)}  # noqa: PTH120
            if len(folders) > 1 or not covers(entry.origin):
                anomalies.count(CHECKPOINT_ENTRY)
                continue
            file = FollowedFile.restore(entry)
            file.saved = format_entry(entry)
            file.saved_generation = entry.generation
            files[entry.key] = file

    def new_generation(self) -> int:
        """Return a number that no generation has had."""
        generation = self._next_generation
        self._next_generation += 1
        return generation

    def touch(self, file: FollowedFile) -> None:
        """Have a file saved with the next commit."""
        self._touched[file.key] = file

    def forget(self, file: FollowedFile) -> None:
        """Leave a file out from the next commit on."""
        self._touched.pop(file.key, None)
        self._has_unsaved |= file.saved is not None

    def save_births(self, batches: Iterable[Batch]) -> None:
        """Save the generations that begin with these lines, at 0.

        Args:
            batches: What is about to be delivered.
        """
        if self._checkpoint is None:
            return
        born = False
        for batch in batches:
            file = batch.file
            if file.saved_generation != file.generation:
                file.saved = format_entry(file.birth_entry())
                file.saved_generation = file.generation
                born = True
        if born:
            self._write(self._checkpoint)
            self._has_unsaved = True

    def commit(self) -> bool:
        """Save the files that were touched as they are now.

        Returns:
            Whether it is saved.

        Raises:
            TypeError: If a file's ``state`` is not JSON.
        """
        if self._checkpoint is None:
            self._touched.clear()
            return True
        for key in list(self._touched):
            file = self._touched[key]
            file.saved = format_entry(file.entry())
            file.saved_generation = file.generation
            self._has_unsaved = True
            del self._touched[key]
        if self._has_unsaved:
            self._has_unsaved = not self._write(self._checkpoint)
        return not self._has_unsaved

    def _write(self, checkpoint: Checkpoint) -> bool:
        entries = [file.saved for file in self._files.values() if file.saved is not None]
        return checkpoint.write(self._next_generation, entries)
