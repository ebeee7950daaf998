"""Retries: which jobs have one, and dead jobs that wait for one."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import Job
from services.enqueue.store.rows import job_of

_jobs = tables.jobs


async def retries_of(tx: Tx, job_ids: Collection[int]) -> dict[int, int]:
    """Those of the jobs that have a retry, one that was canceled aside → the retry's id."""
    if not job_ids:
        return {}
    rows = await tx.execute(
        sa.select(_jobs.c.retry_of, _jobs.c.id).where(
            _jobs.c.retry_of.in_(job_ids),
            # The words of the index jobs_retry, which a bound value would not match.
            _jobs.c.state != sa.literal_column("'CANCELED'"),
        )
    )
    return {row.retry_of: row.id for row in rows}


async def dead(tx: Tx, team: str, *, before_id: int | None, limit: int) -> list[Job]:
    """Dead jobs without a retry, newest first, without their images; an empty team means all."""
    again = _jobs.alias("again")
    retried = sa.exists().where(
        again.c.retry_of == _jobs.c.id, again.c.state != sa.literal_column("'CANCELED'")
    )
    # The words of the index jobs_dead.
    statement = sa.select(_jobs).where(sa.literal_column("jobs.dead", sa.Boolean()), ~retried)
    if team:
        statement = statement.where(_jobs.c.team == team)
    if before_id is not None:
        statement = statement.where(_jobs.c.id < before_id)
    rows = await tx.execute(statement.order_by(_jobs.c.id.desc()).limit(limit))
    return [job_of(row) for row in rows]
