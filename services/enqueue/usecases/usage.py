"""GetUsage: what a team's images took in a window of time."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.enqueue.store import explaining, usage
from services.enqueue.store.usage import TeamUsage
from services.enqueue.usecases.deps import Deps

DEFAULT_WINDOW = timedelta(days=30)


async def get_usage(
    deps: Deps, team: str, start: datetime | None, end: datetime | None
) -> TeamUsage:
    """What images DONE from start (30 days ago) on and before end (now) took."""
    async with deps.db.read(team) as tx:
        if start is None:
            # By the clock that the images' times were written with.
            start = await explaining.time_now(tx) - DEFAULT_WINDOW
        return await usage.between(tx, team, start, end)
