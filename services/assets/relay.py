"""The periodic duties of assets: each round is short and bounded, and may be done by two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import structlog

from libs.common.blobs import BlobStat
from libs.common.retention import PAUSE_SECONDS
from services.assets.domain import is_blob_key
from services.assets.store import files, pins, storage
from services.assets.usecases.calling import CallLimits
from services.assets.usecases.deps import Deps

log = structlog.get_logger()

BATCH = 200
ORPHAN_PAGE = 500
RECOUNT_PAGE = 50
# A job's message may come after its pins have expired; then it revives them.
PIN_MEMORY_SECONDS = 24 * 3600.0


async def forget_pins(deps: Deps) -> bool:
    """Removes pins that expired long ago; True when there may be more."""
    async with deps.db.duty() as tx:
        forgotten = await pins.forget_expired(tx, PIN_MEMORY_SECONDS, BATCH)
    return forgotten == BATCH


async def forget_reservations(deps: Deps) -> bool:
    """Removes what dead uploaders had set aside; True when there may be more."""
    async with deps.db.duty() as tx:
        forgotten = await storage.forget_expired(tx, BATCH)
    return forgotten == BATCH


async def refresh_calls(deps: Deps, calls: CallLimits) -> bool:
    """Hears of teams whose calls per minute were set, here or at another replica."""
    await calls.refresh(deps.db)
    return False


async def remove_blobs(deps: Deps) -> bool:
    """Removes the blobs of deleted files, then their rows; True when there may be more."""
    async with deps.db.read_all() as tx:
        due = await files.to_remove(tx, BATCH)
    if not due:
        return False
    await deps.blobs.delete([removal.blob_key for removal in due])
    deps.crash.here("C1")
    async with deps.db.duty() as tx:
        await files.remove(tx, [removal.file_id for removal in due])
    return len(due) == BATCH


class OrphanSweep:
    """Removes blobs that have no file: left by uploads, or by zips, that never became one.

    One page of the store per round, so that a large store is gone through in small steps. A blob
    is an orphan only past a grace: its row may be about to be committed.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._listing: AsyncIterator[BlobStat] | None = None

    async def round(self) -> bool:
        """Looks at one page; True until the whole store was seen."""
        listing = self._listing or self._deps.blobs.list("")
        self._listing = None  # a fault ends this listing; the next round starts anew
        page: list[BlobStat] = []
        async for blob in listing:
            page.append(blob)
            if len(page) == ORPHAN_PAGE:
                self._listing = listing
                break
        await self._sweep(page)
        if self._listing is None:
            return False
        await self._deps.clock.sleep(PAUSE_SECONDS)
        return True

    async def _sweep(self, page: list[BlobStat]) -> None:
        grace = timedelta(seconds=self._deps.figures.orphan_seconds)
        before = self._deps.clock.now() - grace
        old = [b.key for b in page if b.modified < before and is_blob_key(b.key)]
        if not old:
            return
        async with self._deps.db.read_all() as tx:
            known = await files.known_blobs(tx, old)
        orphans = [key for key in old if key not in known]
        if orphans:
            await self._deps.blobs.delete(orphans)
            log.info("blob.orphans_removed", blobs=len(orphans))


class Recount:
    """Compares what teams are said to store with their files, a page of teams per round.

    There should be nothing to correct: a difference is a fault of ours, and logged as one.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._after_team = ""

    async def round(self) -> bool:
        """Looks at one page; True until all teams were seen."""
        async with self._deps.db.read_all() as tx:
            teams, wrong = await storage.compare(tx, self._after_team, RECOUNT_PAGE)
        for difference in wrong:
            await self._correct(difference.team)
        more = len(teams) == RECOUNT_PAGE
        self._after_team = teams[-1] if more else ""
        return more

    async def _correct(self, team: str) -> None:
        async with self._deps.db.duty() as tx:
            found = await storage.correct(tx, team)
        if found.stored_bytes != found.real_bytes:
            log.error(
                "storage.corrected",
                team=team,
                stored_bytes=found.stored_bytes,
                real_bytes=found.real_bytes,
            )
