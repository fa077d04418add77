"""Track a loop without any Logger, as one of several ranks."""

from __future__ import annotations

from otel_dllogger.training import MessageHub, log_results, track

hub = MessageHub.get_instance("own")
for batch in track(range(4), log_every=2, max_epochs=1):
    hub.update_scalar("train/loss", float(batch))
log_results({"acc": 0.5})
