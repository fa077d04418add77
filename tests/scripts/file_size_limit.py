"""Log 200 lines under a limit on the size of files, lift it, and close.

Prints how many lines were in the file while the limit held, and how many were dropped.
"""

import json
import resource
import sys
from pathlib import Path

from otel_dllogger import JSONStreamBackend, Logger
from otel_dllogger.diagnostics import DIAGNOSTICS

path = Path(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
logger = Logger([JSONStreamBackend(1, path)])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_001, hard))
for number in range(200):
    logger.log((0, number), {"loss": number})
kept = path.read_bytes().count(b"\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
logger.close()
print(json.dumps([kept, DIAGNOSTICS.dropped["disk_full"]]))
