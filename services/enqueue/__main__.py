"""`python -m services.enqueue [serve|migrate|after-restore|settings]`."""

import sys

from libs.common.service_main import service_main
from services.enqueue.app import build, migrate
from services.enqueue.restoring import after_restore
from services.enqueue.settings import Settings

if __name__ == "__main__":
    acts = {"after-restore": after_restore}
    sys.exit(service_main("enqueue", Settings, build, migrate, acts=acts))
