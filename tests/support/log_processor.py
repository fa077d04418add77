"""Hubs with known values, and the lines that a LogProcessor makes of them."""

from __future__ import annotations

from otel_dllogger.training import LogProcessor, LoopState, MessageHub

LINE = (
    "lr: 1.0000e-02  eta: 0:00:00  time: 0.0019  data_time: 0.0004  "
    "loss1: 0.8381  loss2: 0.9007  loss: 1.7388"
)


def hub_of(mode="train", **scalars):
    """Return a hub whose scalars have these values, each a number or a list."""
    hub = MessageHub("a")
    for name, values in scalars.items():
        for value in values if isinstance(values, list) else [values]:
            hub.update_scalar(f"{mode}/{name}", value)
    return hub


def documented(**more):
    """Return the hub of the documented line."""
    hub = hub_of(
        lr=0.01, time=0.0019, data_time=0.0004, loss1=0.8381, loss2=0.9007, loss=1.7388, **more
    )
    hub.update_info("eta", 0.4)
    return hub


def at(hub, **place):
    """Return the state of the documented line."""
    return LoopState(
        hub, **{"max_epochs": 5, "iter": 9, "dataloader_len": 25, "batch_idx": 9, **place}
    )


def after_iter(hub, mode="train", batch_idx=9, *, place=(), **options):
    """Return the numbers and the line after an iteration."""
    return LogProcessor(**options).get_log_after_iter(
        at(hub, mode=mode, **dict(place)), batch_idx, mode
    )


def after_epoch(hub, mode="val", *, place=(), with_non_scalar=False, **options):
    """Return the numbers and the line of results."""
    processor = LogProcessor(**options)
    return processor.get_log_after_epoch(
        at(hub, mode=mode, **dict(place)), 25, mode, with_non_scalar=with_non_scalar
    )
