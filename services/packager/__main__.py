"""`python -m services.packager [serve|migrate|settings]`."""

import sys

from libs.common.service_main import service_main
from services.packager.app import build, migrate
from services.packager.settings import Settings

if __name__ == "__main__":
    sys.exit(service_main("packager", Settings, build, migrate))
