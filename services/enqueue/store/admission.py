"""A team's places: at most so many live jobs, counted from rows under the team's lock.

The lock and the count are two statements on purpose: in one statement the count's snapshot would
be older than the wait for the lock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import Job, JobState
from services.enqueue.store.rows import job_of

_jobs = tables.jobs
_teams = tables.teams
_paused = tables.paused_lanes

_LIVE = sa.and_(
    _jobs.c.admitted_at.is_not(None), _jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))
)
_WAITING = sa.and_(_jobs.c.admitted_at.is_(None), _jobs.c.state == JobState.QUEUED)


@dataclass(frozen=True, slots=True)
class Places:
    """A team's places just now, under its lock: how many are free, and whether jobs wait for one.

    A job that backs off wants no place before its time, and holds up nobody.
    """

    free: int
    waiting: bool


async def ensure_teams(tx: Tx, teams: Collection[str]) -> None:
    """Makes the rows that locks are taken on."""
    now = tx.now()
    await tx.execute(
        tx.insert(_teams)
        .values([{"team": team, "created_at": now} for team in sorted(teams)])
        .on_conflict_do_nothing()
    )


async def lock_teams(tx: Tx, teams: Collection[str]) -> dict[str, int | None]:
    """Takes the teams' locks, in one order for everybody; each team's own limit."""
    rows = await tx.execute(
        sa.select(_teams.c.team, _teams.c.max_live_jobs)
        .where(_teams.c.team.in_(teams))
        .order_by(_teams.c.team)
        .with_for_update(key_share=True)
    )
    return {row.team: row.max_live_jobs for row in rows}


async def places(tx: Tx, limits: Mapping[str, int | None], default_limit: int) -> dict[str, Places]:
    """The places of locked teams (from `lock_teams`)."""
    waiting = sa.exists().where(_WAITING, _due(tx), _jobs.c.team == _teams.c.team)
    rows = await tx.execute(
        sa.select(_teams.c.team, _live_of_team().label("live"), waiting.label("waiting")).where(
            _teams.c.team.in_(list(limits))
        )
    )
    found = {}
    for row in rows:
        limit = limits[row.team]
        limit = default_limit if limit is None else limit
        found[row.team] = Places(max(0, limit - row.live), bool(row.waiting))
    return found


def _live_of_team() -> sa.ScalarSelect[int]:
    """How many jobs of a row of teams hold a place."""
    return sa.select(sa.func.count()).where(_LIVE, _jobs.c.team == _teams.c.team).scalar_subquery()


async def admit_waiting(tx: Tx, team: str, free: int, ring_seconds: float) -> list[Job]:
    """Gives up to `free` places to the team's waiting jobs: priority, then order of arrival.

    The caller holds the team's lock. Each admitted job gets one event number.
    """
    if free <= 0:
        return []
    chosen = (
        await tx.execute(
            sa.select(_jobs.c.id)
            .where(_WAITING, _jobs.c.team == team, _due(tx))
            .order_by(_jobs.c.priority.desc(), _jobs.c.id)
            .limit(free)
        )
    ).scalars()
    rows = await tx.execute(
        sa.update(_jobs)
        .where(_jobs.c.id.in_(chosen.all()), _WAITING)
        .values(
            admitted_at=tx.now(),
            dispatch_no=_jobs.c.dispatch_no + 1,
            last_sequence=_jobs.c.last_sequence + 1,
            not_before=None,
            rings=0,
            ring_at=tx.after(ring_seconds),
        )
        .returning(_jobs)
    )
    return sorted((job_of(row) for row in rows), key=lambda job: job.id)


async def limit_of(tx: Tx, team: str) -> int | None:
    """A team's own limit of live jobs, or None for the default. Takes no lock."""
    limit: int | None = await tx.scalar(
        sa.select(_teams.c.max_live_jobs).where(_teams.c.team == team)
    )
    return limit


async def live_count(tx: Tx, team: str) -> int:
    """How many jobs of a team are live just now. Takes no lock: for telling, not for admitting."""
    count: int = await tx.scalar(
        sa.select(sa.func.count()).select_from(_jobs).where(_LIVE, _jobs.c.team == team)
    )
    return count


async def waiting_count(tx: Tx, team: str, limit: int) -> int:
    """How many jobs of a team wait; counts no further than limit."""
    some = sa.select(_jobs.c.id).where(_WAITING, _jobs.c.team == team).limit(limit).subquery()
    count: int = await tx.scalar(sa.select(sa.func.count()).select_from(some))
    return count


async def teams_with_due_jobs(tx: Tx, default_limit: int, limit: int) -> list[str]:
    """Teams with a job whose back-off is over, and a place for it.

    Those whose places are taken are left out: a hundred of them would hide all others.
    """
    due = (
        sa.select(_jobs.c.team)
        .where(_jobs.c.admitted_at.is_(None), _jobs.c.not_before <= tx.now())
        .where(_jobs.c.state == JobState.QUEUED)
        .distinct()
        .subquery()
    )
    rows = await tx.execute(
        sa.select(_teams.c.team)
        .join(due, due.c.team == _teams.c.team)
        .where(_live_of_team() < sa.func.coalesce(_teams.c.max_live_jobs, default_limit))
        .order_by(_teams.c.team)
        .limit(limit)
    )
    return list(rows.scalars())


async def to_ring(tx: Tx, limit: int) -> list[Job]:
    """Admitted jobs of open lanes whose doorbell was not answered in time."""
    rows = await tx.execute(
        sa.select(_jobs)
        .where(_jobs.c.ring_at <= tx.now(), _LIVE, _jobs.c.state == JobState.QUEUED)
        .where(_jobs.c.lane.not_in(sa.select(_paused.c.lane)))
        .order_by(_jobs.c.ring_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [job_of(row) for row in rows]


async def rings_of(tx: Tx, job_ids: Sequence[int]) -> dict[int, int]:
    """How often each was rung again."""
    rows = await tx.execute(sa.select(_jobs.c.id, _jobs.c.rings).where(_jobs.c.id.in_(job_ids)))
    return {row.id: row.rings for row in rows}


async def rung(tx: Tx, pauses: Mapping[float, Collection[int]]) -> None:
    """Notes that jobs were rung again, and when to do it next: seconds → job ids."""
    for seconds, job_ids in pauses.items():
        await tx.execute(
            sa.update(_jobs)
            .where(_jobs.c.id.in_(job_ids))
            .values(rings=_jobs.c.rings + 1, ring_at=tx.after(seconds))
        )


def _due(tx: Tx) -> sa.ColumnElement[bool]:
    """The job backs off no more."""
    return sa.or_(_jobs.c.not_before.is_(None), _jobs.c.not_before <= tx.now())
