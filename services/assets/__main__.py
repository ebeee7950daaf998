"""`python -m services.assets [serve|migrate|settings]`."""

import sys

from libs.common.service_main import service_main
from services.assets.app import build, migrate
from services.assets.settings import Settings

if __name__ == "__main__":
    sys.exit(service_main("assets", Settings, build, migrate))
