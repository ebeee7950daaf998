"""`python -m services.enqueue [serve|migrate|settings]`."""

import sys

from libs.common.service_main import service_main
from services.enqueue.app import build, migrate
from services.enqueue.settings import Settings

if __name__ == "__main__":
    sys.exit(service_main("enqueue", Settings, build, migrate))
