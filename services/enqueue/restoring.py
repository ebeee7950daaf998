"""`python -m services.enqueue after-restore`: what was brought back may be served again."""

from __future__ import annotations

import asyncio

import structlog

from libs.common import restores
from libs.common.clock import SystemClock
from libs.common.crash import CrashPoints
from libs.common.db import Database
from libs.common.ids import SystemIds
from services.enqueue import tables
from services.enqueue.gateways import ProtoAnnouncer
from services.enqueue.settings import Settings
from services.enqueue.usecases.deps import Deps, Limits
from services.enqueue.usecases.restoring import tell_again
from services.enqueue.wakeups import LocalWakeups

log = structlog.get_logger()

# How far back ends are told again: further than anybody's copy is old, one hopes.
ENDED_SECONDS = 14 * 24 * 3600.0


def after_restore(settings: Settings) -> int:
    """New ids from now on, and everybody hears of the jobs there are. Again does no harm."""
    url = settings.owner_database_url or settings.database_url
    first = restores.settle(url, tables.metadata, SystemClock())
    asyncio.run(_tell(settings, first))
    return 0


async def _tell(settings: Settings, first: int) -> None:
    db = Database(
        settings.database_url,
        duty_url=settings.duty_database_url,
        clock=SystemClock(),
        pool_size=2,
        guarded=True,
    )
    deps = Deps(
        db=db,
        announcer=ProtoAnnouncer(review_required=settings.review_required),
        wakeups=LocalWakeups(),
        wake_relay=lambda: None,  # the service's own publishes, when it is up
        limits=Limits(),
        crash=CrashPoints(""),
        ids=SystemIds(),
    )
    try:
        told = await tell_again(deps, fence=first, ended_seconds=ENDED_SECONDS)
    finally:
        await db.stop()
    log.info("restore.told", live=told.live, ended=told.ended)
