"""`python -m services.worker`."""

from __future__ import annotations

import sys

from libs.common.service_main import service_main
from services.worker.app import build
from services.worker.settings import Settings

if __name__ == "__main__":
    sys.exit(service_main("worker", Settings, build, None))
