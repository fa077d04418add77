"""An alias on the ``sys.path`` of spawned processes: importing it gives ``otel_dllogger``."""

from otel_dllogger.cli.run.aliases import install_in_child

install_in_child()
