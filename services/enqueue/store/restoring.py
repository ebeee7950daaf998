"""What a database that was brought back needs of its jobs; its ids: `libs.common.restores`."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import Job, JobState
from services.enqueue.store import jobs

_jobs = tables.jobs
_events = tables.events
_LIVE = _jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))


async def take_from_workers(tx: Tx, fence: int) -> int:
    """Takes jobs that have not ended from whoever had them, now or after the copy; how many.

    Args:
        tx: a duty's.
        fence: beyond all that were given out since the copy.
    """
    result = await tx.execute(sa.update(_jobs).where(_LIVE).values(fence=fence))
    return result.rowcount


async def forget_order(tx: Tx) -> None:
    """Lets events that carry another cluster's transactions stand before all that are to come."""
    if tx.on_postgres:
        await tx.execute(sa.text("SET LOCAL statement_timeout = 0"))  # all events, once
        now = sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot())
        ahead = _events.c.commit_order >= sa.cast(sa.cast(now, sa.Text), sa.BigInteger)
        await tx.execute(sa.update(_events).where(ahead).values(commit_order=0))


async def live(tx: Tx, after_id: int, limit: int) -> list[Job]:
    """The next jobs that have not ended, by id."""
    return await _page(tx, _LIVE, after_id, limit)


async def ended(tx: Tx, age_seconds: float, after_id: int, limit: int) -> list[Job]:
    """The next jobs that ended within so many seconds, by id."""
    return await _page(tx, _jobs.c.finished_at > tx.ago(age_seconds), after_id, limit)


async def _page(tx: Tx, which: sa.ColumnElement[bool], after_id: int, limit: int) -> list[Job]:
    query = sa.select(_jobs.c.id).where(which, _jobs.c.id > after_id).order_by(_jobs.c.id)
    found = await jobs.find_many(tx, (await tx.execute(query.limit(limit))).scalars().all())
    return found[::-1]
