"""Moments on the command line: 2025-08-16T12:00:00Z, a local time, or so long ago."""

from __future__ import annotations

import datetime as dt
import time

import click

from otel_dllogger.commands.duration import Duration


class Moment(click.ParamType[int]):
    """Read a moment; what the command gets are microseconds since the Unix epoch."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return microseconds since the Unix epoch.

        Raises:
            click.BadParameter: If it is no moment.
        """
        if isinstance(value, int):
            return value
        text = str(value).strip()
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
                f"{text!r} is no time; write 2025-08-16T12:00:00Z, or 2h for two hours ago",
                param,
                ctx,
            )
