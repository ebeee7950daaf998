"""`python -m services.packager [serve|migrate|after-restore|settings]`."""

import sys

from libs.common.service_main import service_main
from services.packager.app import build, migrate
from services.packager.restoring import after_restore
from services.packager.settings import Settings

if __name__ == "__main__":
    acts = {"after-restore": after_restore}
    sys.exit(service_main("packager", Settings, build, migrate, acts=acts))
