"""Accounts beside the ledger and the jobs: figures that must agree, read in one snapshot each.

Every statement reads all it compares, so that what is committed meanwhile shows on both sides or
on none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import JobState
from services.enqueue.store.ledger import EntryKind

_accounts = tables.accounts
_entries = tables.credit_entries
_jobs = tables.jobs


@dataclass(frozen=True, slots=True)
class AccountFigures:
    """An account, and what its ledger and the jobs that have not ended come to."""

    team: str
    granted: int
    available: int
    held: int
    captured: int
    grants: int
    holds: int
    captures: int
    releases: int
    live_held: int
    live_done: int


@dataclass(frozen=True, slots=True)
class JobFigures:
    """A job with a hold, and what its entries come to; `released` None: not ended."""

    id: int
    team: str
    ended: bool
    count: int
    done: int
    held: int
    released: int | None
    holds: int
    captures: int
    releases: int


async def accounts(tx: Tx, after: str, limit: int) -> list[AccountFigures]:
    """The figures of the next accounts by team."""
    chosen = (
        sa.select(_accounts)
        .where(_accounts.c.team > after)
        .order_by(_accounts.c.team)
        .limit(limit)
        .cte("chosen")
    )
    ledger = (
        sa.select(_entries.c.team, *_sums())
        .where(_entries.c.team.in_(sa.select(chosen.c.team)))
        .group_by(_entries.c.team)
        .subquery()
    )
    unended = _jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))
    # Two halves, each in the words of an index of its own: the ended jobs are not walked through.
    halves = sa.union_all(
        *(
            sa.select(_jobs.c.team, _jobs.c.credits_held, _jobs.c.images_done).where(
                _jobs.c.team.in_(sa.select(chosen.c.team)), _jobs.c.credits_held.is_not(None), half
            )
            for half in (
                sa.and_(_jobs.c.admitted_at.is_not(None), unended),
                sa.and_(_jobs.c.admitted_at.is_(None), _jobs.c.state == JobState.QUEUED),
            )
        )
    ).subquery()
    live = (
        sa.select(
            halves.c.team,
            _sum(halves.c.credits_held).label("live_held"),
            _sum(halves.c.images_done).label("live_done"),
        )
        .group_by(halves.c.team)
        .subquery()
    )
    names = ("grants", "holds", "captures", "releases")
    statement = (
        sa.select(
            *(chosen.c[name] for name in ("team", "granted", "available", "held", "captured")),
            *(sa.func.coalesce(ledger.c[name], 0).label(name) for name in names),
            sa.func.coalesce(live.c.live_held, 0).label("live_held"),
            sa.func.coalesce(live.c.live_done, 0).label("live_done"),
        )
        .outerjoin_from(chosen, ledger, ledger.c.team == chosen.c.team)
        .outerjoin(live, live.c.team == chosen.c.team)
        .order_by(chosen.c.team)
    )
    rows = (await tx.execute(statement)).mappings()
    return [AccountFigures(**dict(row)) for row in rows]


async def jobs(tx: Tx, after: int, limit: int) -> tuple[list[JobFigures], int | None]:
    """The figures of those with a hold among the next jobs by id, and where to go on; None: end."""
    ids = sa.select(_jobs.c.id).where(_jobs.c.id > after).order_by(_jobs.c.id).limit(limit)
    last: int | None = await tx.scalar(sa.select(sa.func.max(ids.subquery().c.id)))
    if last is None:
        return [], None
    within = sa.and_(_jobs.c.id > after, _jobs.c.id <= last, _jobs.c.credits_held.is_not(None))
    ledger = (
        sa.select(_entries.c.job_id, *_sums())
        .where(_entries.c.job_id > after, _entries.c.job_id <= last)
        .group_by(_entries.c.job_id)
        .subquery()
    )
    names = ("holds", "captures", "releases")
    rows = await tx.execute(
        sa.select(
            _jobs.c.id,
            _jobs.c.team,
            _jobs.c.finished_at.is_not(None).label("ended"),
            _jobs.c.number_of_variations.label("count"),
            _jobs.c.images_done.label("done"),
            _jobs.c.credits_held.label("held"),
            _jobs.c.credits_released.label("released"),
            *(sa.func.coalesce(ledger.c[name], 0).label(name) for name in names),
        )
        .outerjoin_from(_jobs, ledger, ledger.c.job_id == _jobs.c.id)
        .where(within)
        .order_by(_jobs.c.id)
    )
    return [JobFigures(**dict(row)) for row in rows.mappings()], last


def _sums() -> list[sa.ColumnElement[int]]:
    """The ledger's amounts by kind."""
    kinds = (EntryKind.GRANT, EntryKind.HOLD, EntryKind.CAPTURE, EntryKind.RELEASE)
    return [
        _sum(sa.case((_entries.c.kind == kind, _entries.c.amount), else_=0)).label(
            f"{kind.lower()}s"
        )
        for kind in kinds
    ]


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """A sum that is a whole number again: PostgreSQL's sum of bigints is numeric."""
    return sa.cast(sa.func.sum(column), sa.BigInteger)
