"""What operators count: waiting and running jobs, and how ended ones went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import JobState

_jobs = tables.jobs
_teams = tables.teams

_LIVE = sa.and_(
    _jobs.c.admitted_at.is_not(None), _jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))
)
_WAITING = sa.and_(_jobs.c.admitted_at.is_(None), _jobs.c.state == JobState.QUEUED)
_QUEUED = _jobs.c.state == JobState.QUEUED
P50, P95 = 0.5, 0.95


@dataclass(frozen=True, slots=True)
class LaneCounts:
    """The jobs of one lane that have not ended."""

    waiting: int = 0
    admitted: int = 0
    running: int = 0
    oldest_admitted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TeamCounts:
    """The jobs of one team that have not ended; `limit` None: the service's default."""

    team: str
    live: int
    limit: int | None
    waiting: int
    oldest_waiting_at: datetime | None


@dataclass(frozen=True, slots=True)
class TypeFigures:
    """The ended jobs of one type; seconds are those of SUCCEEDED jobs, 0 where there is none."""

    type: str
    total: int
    succeeded: int
    failed: int
    canceled: int
    mean_seconds: float
    p50_seconds: float
    p95_seconds: float
    mean_wait_seconds: float


@dataclass(frozen=True, slots=True)
class Window:
    """Jobs that ended from `start` on and before `end`; of one team, where it names one."""

    start: datetime
    end: datetime
    team: str = ""


async def lane_counts(tx: Tx) -> dict[str, LaneCounts]:
    """By lane; two queries, each along an index of just those jobs."""
    live = await tx.execute(
        sa.select(
            _jobs.c.lane,
            sa.func.count().filter(_QUEUED).label("admitted"),
            sa.func.count().filter(_jobs.c.state == JobState.RUNNING).label("running"),
            sa.func.min(_jobs.c.admitted_at).filter(_QUEUED).label("oldest"),
        )
        .where(_LIVE)
        .group_by(_jobs.c.lane)
    )
    waiting = await tx.execute(
        sa.select(_jobs.c.lane, sa.func.count().label("waiting"))
        .where(_WAITING)
        .group_by(_jobs.c.lane)
    )
    waits = {row.lane: row.waiting for row in waiting}
    found = {row.lane: row for row in live}
    return {
        lane: LaneCounts(
            waits.get(lane, 0),
            *((r.admitted, r.running, r.oldest) if (r := found.get(lane)) else (0, 0, None)),
        )
        for lane in {*waits, *found}
    }


async def team_counts(tx: Tx, limit: int) -> list[TeamCounts]:
    """The teams with the most waiting jobs, then those with the most live ones."""
    waiting = (
        sa.select(
            _jobs.c.team, sa.func.count().label("waiting"), sa.func.min(_jobs.c.id).label("oldest")
        )
        .where(_WAITING)
        .group_by(_jobs.c.team)
        .subquery()
    )
    live = (
        sa.select(_jobs.c.team, sa.func.count().label("live"))
        .where(_LIVE)
        .group_by(_jobs.c.team)
        .subquery()
    )
    oldest = sa.select(_jobs.c.created_at).where(_jobs.c.id == waiting.c.oldest).scalar_subquery()
    count, holds = (sa.func.coalesce(n, 0) for n in (waiting.c.waiting, live.c.live))
    rows = await tx.execute(
        sa.select(
            _teams.c.team,
            _teams.c.max_live_jobs,
            count.label("waiting"),
            holds.label("live"),
            oldest.label("oldest"),
        )
        .outerjoin(waiting, waiting.c.team == _teams.c.team)
        .outerjoin(live, live.c.team == _teams.c.team)
        .where(sa.or_(waiting.c.waiting > 0, live.c.live > 0))
        .order_by(count.desc(), holds.desc(), _teams.c.team)
        .limit(limit)
    )
    return [
        TeamCounts(row.team, row.live, row.max_live_jobs, row.waiting, row.oldest) for row in rows
    ]


async def type_figures(tx: Tx, window: Window) -> list[TypeFigures]:
    """How the jobs that ended in a window went, by type."""
    seconds = _seconds_between(tx, _jobs.c.started_at, _jobs.c.finished_at)
    wait = _seconds_between(tx, _jobs.c.created_at, _jobs.c.started_at)
    succeeded = _jobs.c.state == JobState.SUCCEEDED
    columns = [
        _jobs.c.type,
        sa.func.count().label("total"),
        *(
            sa.func.count().filter(_jobs.c.state == state).label(state.lower())
            for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)
        ),
        sa.func.avg(seconds).filter(succeeded).label("mean"),
        sa.func.avg(wait).filter(succeeded).label("mean_wait"),
    ]
    if tx.on_postgres:
        # Both at once: the durations are sorted once.
        both = sa.func.percentile_cont(sa.cast([P50, P95], sa.ARRAY(sa.Float)))
        columns.append(both.within_group(seconds).filter(succeeded).label("percentiles"))
    rows = (
        await tx.execute(
            sa.select(*columns).where(*_in(window)).group_by(_jobs.c.type).order_by(_jobs.c.type)
        )
    ).all()
    shares: dict[str, tuple[float, float]] = {}
    for row in [] if tx.on_postgres else rows:  # one or two types
        of_type = (*_in(window), _jobs.c.type == row.type, succeeded)
        shares[row.type] = (
            await _percentile(tx, seconds, of_type, row.succeeded, P50),
            await _percentile(tx, seconds, of_type, row.succeeded, P95),
        )
    return [_figures(row, *(shares.get(row.type) or row.percentiles or (0.0, 0.0))) for row in rows]


def _figures(row: sa.Row[Any], p50: float, p95: float) -> TypeFigures:
    return TypeFigures(
        type=row.type,
        total=row.total,
        succeeded=row.succeeded,
        failed=row.failed,
        canceled=row.canceled,
        mean_seconds=float(row.mean or 0.0),
        p50_seconds=p50,
        p95_seconds=p95,
        mean_wait_seconds=float(row.mean_wait or 0.0),
    )


def _in(window: Window) -> list[sa.ColumnElement[bool]]:
    conditions = [_jobs.c.finished_at >= window.start, _jobs.c.finished_at < window.end]
    if window.team:
        conditions.append(_jobs.c.team == window.team)
    return conditions


def _seconds_between(
    tx: Tx, start: sa.ColumnElement[Any], end: sa.ColumnElement[Any]
) -> sa.ColumnElement[float]:
    if tx.on_postgres:
        return sa.cast(sa.extract("epoch", end - start), sa.Float)
    micros = sa.type_coerce(end, sa.BigInteger) - sa.type_coerce(start, sa.BigInteger)
    return sa.cast(sa.cast(micros, sa.Float) / 1e6, sa.Float)


async def _percentile(
    tx: Tx,
    seconds: sa.ColumnElement[float],
    conditions: tuple[sa.ColumnElement[bool], ...],
    count: int,
    share: float,
) -> float:
    """As PostgreSQL's percentile_cont: between the two nearest, in proportion."""
    if not count:
        return 0.0
    place = (count - 1) * share
    below = int(place)
    rows = await tx.execute(
        sa.select(seconds).where(*conditions).order_by(seconds).limit(2).offset(below)
    )
    nearest = list(rows.scalars())
    return float(nearest[0] + (nearest[-1] - nearest[0]) * (place - below))
