"""Jobs of which assets is asked whether it has heard of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import TERMINAL

_jobs = tables.jobs


@dataclass(frozen=True, slots=True)
class Due:
    """A job that is due, and when the review was made that assets is to know of, if any."""

    job_id: int
    team: str
    ended: bool
    reviewed_at: datetime | None


async def due(tx: Tx, limit: int, *, reviews: bool) -> list[Due]:
    """The next jobs, of all teams. Takes no locks: what is to be asked takes its time.

    Args:
        tx: where.
        limit: at most so many.
        reviews: assets is told of them.
    """
    rows = await tx.execute(
        sa.select(_jobs.c.id, _jobs.c.team, _jobs.c.state, _jobs.c.reviewed_at)
        .where(_jobs.c.confirm_at <= tx.now())
        .order_by(_jobs.c.confirm_at)
        .limit(limit)
    )
    return [
        Due(row.id, row.team, row.state in TERMINAL, row.reviewed_at if reviews else None)
        for row in rows
    ]


async def settle(tx: Tx, job_ids: Collection[int], *, again_seconds: float | None) -> Sequence[int]:
    """Sets when these are looked at again, or never; those that are due still.

    What has changed since it was found due has a later date, and is left alone.
    """
    if not job_ids:
        return []
    again = None if again_seconds is None else tx.after(again_seconds)
    rows = await tx.execute(
        sa.update(_jobs)
        .where(_jobs.c.id.in_(job_ids), _jobs.c.confirm_at <= tx.now())
        .values(confirm_at=again)
        .returning(_jobs.c.id)
    )
    return rows.scalars().all()
