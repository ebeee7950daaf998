"""`python -m services.assets check`: lists files whose bytes are not in the blob store."""

from __future__ import annotations

import asyncio
import sys

from libs.common.clock import SystemClock
from libs.common.db import Database
from libs.common.ids import SystemIds
from services.assets.app import open_blobs
from services.assets.settings import Settings
from services.assets.usecases.checking import files_without_blob


def check(settings: Settings) -> int:
    """A line for each such file; exit code 1 where there is one. Reads sizes, not bytes."""
    return asyncio.run(_check(settings))


async def _check(settings: Settings) -> int:
    clock = SystemClock()
    db = Database(
        settings.database_url,
        duty_url=settings.duty_database_url,
        clock=clock,
        pool_size=2,
        guarded=True,
    )
    blobs = open_blobs(settings, clock, SystemIds())
    await blobs.start()
    looked_at = missing = 0
    try:
        async for page in files_without_blob(db, blobs):
            looked_at += page.looked_at
            missing += len(page.missing)
            for one in page.missing:
                sys.stdout.write(f"file {one.file_id} of team {one.team}: {one.what}\n")
    finally:
        await blobs.close()
        await db.stop()
    sys.stdout.write(f"{looked_at} files, {missing} without their bytes\n")
    return 1 if missing else 0
