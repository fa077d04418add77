"""Moments on the command line: 2025-08-16T12:00:00Z, a local time, or so long ago."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import click

from otel_dllogger.cli.duration import Duration


class Instant(int):
    """Hold microseconds since the Unix epoch, and how the user said it.

    Attributes:
        text: As it was given: ``2h`` is another instant each time, and yet the same wish.
    """

    text: str


if TYPE_CHECKING:
    _InstantType = click.ParamType[Instant]
else:  # which older versions of click do not know as a generic
    _InstantType = click.ParamType


class Moment(_InstantType):
    """Read a moment."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Instant:
        """Return an instant.

        Raises:
            click.BadParameter: If it is no moment.
        """
        text = str(value).strip()
        instant = Instant(self._read_us(text, param, ctx))
        instant.text = text
        return instant

    def _read_us(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
        except ValueError:
            pass
        else:
            return round(moment.timestamp() * 1e6)  # naive: local, as everywhere
        try:
            return time.time_ns() // 1000 - round(Duration().convert(text, param, ctx) * 1e6)
        except click.BadParameter:
            self.fail(
                f"{text!r} is not a time; write 2025-08-16T12:00:00Z, or 2h for two hours ago",
                param,
                ctx,
            )
