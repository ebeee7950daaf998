"""`python -m services.assets after-restore`: what was brought back may be served again."""

from __future__ import annotations

from libs.common import restores
from libs.common.clock import SystemClock
from services.assets import tables
from services.assets.settings import Settings


def after_restore(settings: Settings) -> int:
    """New ids from now on; enqueue's own after-restore tells what happened since the copy."""
    url = settings.owner_database_url or settings.database_url
    restores.settle(url, tables.metadata, SystemClock())
    return 0
