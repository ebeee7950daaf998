"""Old rows, of all teams, removed in bounded steps. The ledger of credits is never touched."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from libs.common import request_keys
from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import ArchiveState, JobState

_jobs = tables.jobs
_retries = tables.jobs.alias("retries")
_events = tables.events
_batches = tables.batches
_audit = tables.audit_entries


@dataclass(frozen=True, slots=True)
class EventStep:
    """What one step over events did.

    Attributes:
        removed: events.
        last_job: where the next step begins; None: nothing behind it can be old enough.
    """

    removed: int
    last_job: int | None


async def remove_jobs(tx: Tx, age_seconds: float, limit: int) -> int:
    """Removes jobs that ended so long ago, with images and events; how many.

    A job that was retried goes with its retry, in the same transaction: without it, it would
    stand for its variant again, and the retry's outputs would lack its images.
    """
    removed = 0
    ids = await _removable(tx, age_seconds, limit)
    while ids:
        rows = await tx.execute(
            sa.delete(_jobs).where(_jobs.c.id.in_(ids)).returning(_jobs.c.retry_of)
        )
        retried = list(rows.scalars())
        removed += len(retried)
        ids = await _removable(tx, age_seconds, limit, {one for one in retried if one})
    return removed


async def remove_batches(tx: Tx, age_seconds: float, limit: int) -> int:
    """Removes batches made so long ago that have no job left; how many."""
    has_jobs = sa.exists().where(_jobs.c.batch_id == _batches.c.id)
    old = (
        sa.select(_batches.c.id)
        .where(_batches.c.created_at < tx.ago(age_seconds), ~has_jobs)
        .order_by(_batches.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list((await tx.execute(old)).scalars())
    if ids:
        await tx.execute(sa.delete(_batches).where(_batches.c.id.in_(ids)))
    return len(ids)


async def remove_events(tx: Tx, age_seconds: float, after_job: int, jobs: int) -> EventStep:
    """Removes the events of ended jobs among the next so many that have any.

    Ids grow with time: behind a job that is too young there is none that is old enough.
    """
    page = (
        sa.select(_events.c.job_id)
        .where(_events.c.job_id > after_job)
        .group_by(_events.c.job_id)
        .order_by(_events.c.job_id)
        .limit(jobs)
        .subquery()
    )
    before = tx.ago(age_seconds)
    rows = (
        await tx.execute(
            sa.select(
                _jobs.c.id,
                (_jobs.c.created_at < before).label("old"),
                sa.and_(_settled(), _jobs.c.finished_at < before).label("due"),
            )
            .join(page, page.c.job_id == _jobs.c.id)
            .order_by(_jobs.c.id)
        )
    ).all()
    due = [row.id for row in rows if row.due]
    removed = 0
    if due:
        result = await tx.execute(sa.delete(_events).where(_events.c.job_id.in_(due)))
        removed = result.rowcount
    more = len(rows) == jobs and rows[-1].old
    return EventStep(removed, rows[-1].id if more else None)


async def remove_audit(tx: Tx, age_seconds: float, limit: int) -> int:
    """Removes audit entries that are so old; how many. Ids grow with time."""
    oldest = sa.select(_audit.c.id, _audit.c.at).order_by(_audit.c.id).limit(limit).subquery()
    ids = sa.select(oldest.c.id).where(oldest.c.at < tx.ago(age_seconds))
    result = await tx.execute(sa.delete(_audit).where(_audit.c.id.in_(ids)))
    return result.rowcount


async def remove_keys(tx: Tx, age_seconds: float, limit: int) -> int:
    """Forgets keys that were kept so long ago; how many."""
    return await request_keys.forget(tx, tables.idempotency_keys, age_seconds, limit)


async def _removable(
    tx: Tx, age_seconds: float, limit: int, among: Collection[int] | None = None
) -> list[int]:
    retried = sa.exists().where(
        # In the words of the index jobs_retry.
        _retries.c.retry_of == _jobs.c.id,
        _retries.c.retry_of.is_not(None),
        _retries.c.state != JobState.CANCELED,
    )
    held = sa.and_(_jobs.c.credits_held.is_not(None), _jobs.c.credits_released.is_(None))
    query = (
        sa.select(_jobs.c.id)
        .where(_jobs.c.finished_at < tx.ago(age_seconds), _settled(), ~retried, ~held)
        .order_by(_jobs.c.finished_at)
        .limit(limit)
        .with_for_update(of=_jobs, skip_locked=True)
    )
    if among is not None:
        query = query.where(_jobs.c.id.in_(among))
    return list((await tx.execute(query)).scalars())


def _settled() -> sa.ColumnElement[bool]:
    """The job has ended, and no zip is to come."""
    return sa.and_(_jobs.c.finished_at.is_not(None), _jobs.c.archive_state != ArchiveState.PENDING)
