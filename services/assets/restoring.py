"""`python -m services.assets after-restore`: what was brought back may be served again."""

from __future__ import annotations

import structlog

from libs.common import restores
from libs.common.clock import SystemClock
from services.assets import tables
from services.assets.settings import Settings

log = structlog.get_logger()


def after_restore(settings: Settings) -> int:
    """New ids from now on; enqueue's own after-restore tells what happened since the copy."""
    url = settings.owner_database_url or settings.database_url
    first = restores.settle(url, tables.metadata, SystemClock())
    log.info("restore.settled", first_id=first)
    return 0
