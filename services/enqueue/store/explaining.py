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

    def __add__(self, other: LaneWorkers) -> LaneWorkers:
        """Both together."""
        return LaneWorkers(
            self.count + other.count, self.slots + other.slots, self.taken + other.taken
        )


async def ahead_of(tx: Tx, job: Job) -> int:
    """How many of the team's waiting jobs come before this one.

    Jobs that back off do not: they wait for their time, and not for a place.
    """
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
            sa.or_(_jobs.c.not_before.is_(None), _jobs.c.not_before <= tx.now()),
            before,
        )
    )
    return count


async def workers_by_lane(tx: Tx, heard_within_seconds: float) -> dict[str, LaneWorkers]:
    """The workers of each lane; few enough to be read whole. One of two lanes counts in both."""
    rows = await tx.execute(
        sa.select(_workers).where(_workers.c.seen_at > tx.after(-heard_within_seconds))
    )
    lanes: dict[str, LaneWorkers] = {}
    for row in rows:
        for lane in row.lanes:
            lanes[lane] = lanes.get(lane, LaneWorkers()) + LaneWorkers(1, row.slots, row.running)
    return lanes


async def recent_seconds(tx: Tx, lane: str) -> float | None:
    """How long the lane's last jobs ran, on average, in seconds; None: there is no such job.

    Along an index of just these jobs, so as quick with a million of them.
    """
    rows = (
        await tx.execute(
            sa.select(_jobs.c.started_at, _jobs.c.finished_at)
            .where(_jobs.c.lane == lane, _jobs.c.state == JobState.SUCCEEDED)
            .order_by(_jobs.c.finished_at.desc())
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
