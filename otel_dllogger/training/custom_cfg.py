"""Checks of the items in a ``LogProcessor``'s ``custom_cfg``, made before they are used."""

from __future__ import annotations

import inspect
from types import NoneType
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import MisuseError, MisuseTypeError
from otel_dllogger.training.history_buffer import HistoryBuffer
from otel_dllogger.training.loop_state import MODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def check_items(custom_cfg: list[dict[str, Any]], *, by_epoch: bool) -> None:
    """Check that each item of ``custom_cfg`` is meaningful.

    Args:
        custom_cfg: The items.
        by_epoch: Whether epochs are counted.

    Raises:
        MisuseError: If an item is not meaningful; the message says which one.
        TypeError: If the type of a ``window_size`` is not supported.
    """
    if not isinstance(custom_cfg, (list, tuple)):
        raise MisuseError(f"custom_cfg={custom_cfg!r} is not a list: pass [dict(...), ...]")
    names: set[str] = set()
    for number, cfg in enumerate(custom_cfg):
        item = f"custom_cfg[{number}]={cfg!r}"
        if not isinstance(cfg, dict):
            raise MisuseError(f"{item} is not a dict: pass dict(data_src=..., method_name=...)")
        for key in ("data_src", "method_name"):
            if key not in cfg:
                raise MisuseError(f"{item} has no {key}: add {key}='...'")
            if not isinstance(cfg[key], str):
                raise MisuseError(f"{item} has a {key} that is not text: pass {key}='...'")
        mode, slash, name = cfg["data_src"].partition("/")
        if slash and mode in MODES:
            DIAGNOSTICS.warn(
                f"data_src {cfg['data_src']}",
                f"{item} matches no scalar: its data_src begins with a mode; write {name!r}",
            )
        log_name: Any = cfg.get("log_name", cfg["data_src"])
        if not isinstance(log_name, str) or not log_name:
            raise MisuseError(f"{item} has a log_name that is not a name: pass log_name='...'")
        if log_name in names:
            raise MisuseError(
                f"{item} logs {log_name!r} a second time: give each item with the same data_src "
                "its own log_name"
            )
        names.add(log_name)
        window_size = cfg.get("window_size")
        if not isinstance(window_size, (int, str, NoneType)) or (
            isinstance(window_size, str) and window_size not in ("epoch", "global")
        ):
            raise MisuseTypeError(
                f"{item}: window_size should be int, epoch or global, but got {window_size!r}"
            )
        if isinstance(window_size, int) and window_size < 1:
            raise MisuseError(f"{item} has an empty window: use a number from 1 up")
        if window_size == "epoch" and not by_epoch:
            raise MisuseError(
                f"{item} has the window 'epoch', but by_epoch is False: use a number or 'global'"
            )


def check_statistics(
    custom_cfg: Iterable[Mapping[str, Any]], *, must_be_there: bool = False
) -> None:
    """Check that statistics accept the arguments that the items of ``custom_cfg`` give them.

    Args:
        custom_cfg: The items.
        must_be_there: Whether to refuse a statistic that is not registered yet.

    Raises:
        MisuseError: If a statistic does not; the message says which item asks for it.
    """
    for number, cfg in enumerate(custom_cfg):
        item, name = f"custom_cfg[{number}]={dict(cfg)!r}", cfg["method_name"]
        method = HistoryBuffer.find_statistics(name)
        if method is None:
            if must_be_there:
                raise MisuseError(
                    f"{item}: there is no statistic {name!r}: register it with "
                    "@HistoryBuffer.register_statistics, or pass mean, min, max or current"
                )
            continue
        given = {k: v for k, v in cfg.items() if k not in {"data_src", "method_name", "log_name"}}
        try:
            signature = inspect.signature(method, follow_wrapped=False)
        except (TypeError, ValueError):  # the function is not written in Python
            continue
        try:
            signature.bind(None, **given)
        except TypeError as error:
            takes = ", ".join(list(signature.parameters)[1:]) or "nothing"
            raise MisuseTypeError(f"{item}: {error}; {name!r} takes {takes}") from None
