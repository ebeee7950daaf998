"""`python -m services.assets [serve|migrate|after-restore|check|settings]`."""

import sys

from libs.common.service_main import service_main
from services.assets.app import build, migrate
from services.assets.checking import check
from services.assets.restoring import after_restore
from services.assets.settings import Settings

if __name__ == "__main__":
    acts = {"after-restore": after_restore, "check": check}
    sys.exit(service_main("assets", Settings, build, migrate, acts=acts))
