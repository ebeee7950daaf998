"""What is needed to say why a job waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import Job, JobState

_jobs = tables.jobs
_workers = tables.workers

RECENT_JOBS = 50


@dataclass(frozen=True, slots=True)
class LaneWorkers:
    """The workers of a lane that were heard of lately."""

    count: int = 0
    slots: int = 0
    taken: int = 0


async def ahead_of(tx: Tx, job: Job) -> int:
    """How many of the team's waiting jobs come before this one."""
    priority = job.spec.priority
    before = sa.or_(
        _jobs.c.priority > priority,
        sa.and_(_jobs.c.priority == priority, _jobs.c.id < job.id),
    )
    count: int = await tx.scalar(
        sa.select(sa.func.count())
        .select_from(_jobs)
        .where(
            _jobs.c.team == job.spec.team,
            _jobs.c.state == JobState.QUEUED,
            _jobs.c.admitted_at.is_(None),
            before,
        )
    )
    return count


async def lane_workers(tx: Tx, lane: str, heard_within_seconds: float) -> LaneWorkers:
    """The lane's workers; few enough to be read whole."""
    rows = await tx.execute(
        sa.select(_workers).where(_workers.c.seen_at > tx.after(-heard_within_seconds))
    )
    serving = [row for row in rows if lane in row.lanes]
    return LaneWorkers(
        len(serving), sum(row.slots for row in serving), sum(row.running for row in serving)
    )


async def recent_seconds(tx: Tx, team: str, lane: str) -> float | None:
    """How long the team's recent jobs of a lane ran, on average, in seconds; None: no such job."""
    rows = (
        await tx.execute(
            sa.select(_jobs.c.started_at, _jobs.c.finished_at)
            .where(_jobs.c.team == team, _jobs.c.lane == lane, _jobs.c.state == JobState.SUCCEEDED)
            .order_by(_jobs.c.id.desc())
            .limit(RECENT_JOBS)
        )
    ).all()
    if not rows:
        return None
    total: float = sum((row.finished_at - row.started_at).total_seconds() for row in rows)
    return total / len(rows)


async def time_now(tx: Tx) -> datetime:
    """The time, by the clock the rows were written with."""
    now: datetime = await tx.scalar(sa.select(tx.now()))
    return now
