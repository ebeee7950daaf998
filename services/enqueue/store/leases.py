"""Leases of running jobs, by the database's clock, and the presence of workers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import JobState

_jobs = tables.jobs
_workers = tables.workers


@dataclass(frozen=True, slots=True)
class Presence:
    """What a worker says of itself."""

    name: str
    lanes: tuple[str, ...]
    slots: int


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """A claim whose lease has run out: enough to guard what is done about it."""

    job_id: int
    team: str
    fence: int


async def renew(tx: Tx, held: Mapping[int, int], lease_seconds: float) -> set[int]:
    """Extends the leases of running jobs whose fence still holds; the ids of those extended."""
    if not held:
        return set()
    claim = sa.tuple_(_jobs.c.id, _jobs.c.fence)
    rows = await tx.execute(
        sa.update(_jobs)
        .where(claim.in_(list(held.items())), _jobs.c.state == JobState.RUNNING)
        .values(lease_expires_at=tx.after(lease_seconds))
        .returning(_jobs.c.id)
    )
    return set(rows.scalars())


async def fences(tx: Tx, job_ids: Collection[int]) -> dict[int, int]:
    """The fences of those of the jobs that are RUNNING. Takes no locks: for asking alone."""
    rows = await tx.execute(
        sa.select(_jobs.c.id, _jobs.c.fence).where(
            _jobs.c.id.in_(job_ids), _jobs.c.state == JobState.RUNNING
        )
    )
    return {row.id: row.fence for row in rows}


async def note_rate_waits(tx: Tx, waits: Mapping[int, datetime]) -> None:
    """Notes until when jobs wait for their model: for telling people."""
    statement = (
        sa.update(_jobs)
        .where(_jobs.c.id == sa.bindparam("waiting"), _jobs.c.state == JobState.RUNNING)
        .values(rate_wait_until=sa.bindparam("until"))
    )
    # In one order for everybody: two replicas may note the waits of one job's images.
    rows = [{"waiting": job_id, "until": until} for job_id, until in sorted(waits.items())]
    await tx.execute(statement, rows)


async def present(tx: Tx, worker: Presence, running: int) -> None:
    """Notes that a worker lives."""
    values = {
        "name": worker.name,
        "lanes": list(worker.lanes),
        "slots": worker.slots,
        "running": running,
        "seen_at": tx.now(),
    }
    changes = {key: value for key, value in values.items() if key != "name"}
    await tx.execute(
        tx.insert(_workers)
        .values(values)
        .on_conflict_do_update(index_elements=["name"], set_=changes)
    )


async def forget_workers(tx: Tx, older_than_seconds: float) -> None:
    """Removes workers not seen for long."""
    await tx.execute(sa.delete(_workers).where(_workers.c.seen_at < tx.after(-older_than_seconds)))


async def expired(tx: Tx, limit: int) -> list[ExpiredLease]:
    """Running jobs whose lease has run out, longest first. Takes no locks."""
    rows = await tx.execute(
        sa.select(_jobs.c.id, _jobs.c.team, _jobs.c.fence)
        .where(_jobs.c.state == JobState.RUNNING, _jobs.c.lease_expires_at < tx.now())
        .order_by(_jobs.c.lease_expires_at)
        .limit(limit)
    )
    return [ExpiredLease(row.id, row.team, row.fence) for row in rows]


async def still_expired(tx: Tx, lease: ExpiredLease) -> bool:
    """Locks the job and says whether this very claim is still there and expired."""
    row = (
        await tx.execute(
            sa.select(_jobs.c.id)
            .where(
                _jobs.c.id == lease.job_id,
                _jobs.c.fence == lease.fence,
                _jobs.c.state == JobState.RUNNING,
                _jobs.c.lease_expires_at < tx.now(),
            )
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    return row is not None


async def revoke(tx: Tx, worker: str) -> None:
    """Lets the leases of a worker run out now."""
    await tx.execute(_revoked(tx).where(_jobs.c.worker == worker))


async def revoke_all(tx: Tx) -> None:
    """Lets every lease run out now: at the start of an embedded house, whose workers are gone."""
    await tx.execute(_revoked(tx))


def _revoked(tx: Tx) -> sa.Update:
    running = sa.update(_jobs).where(_jobs.c.state == JobState.RUNNING)
    return running.values(lease_expires_at=tx.after(-1))


async def ring_all(tx: Tx) -> None:
    """Makes every admitted job due for its doorbell: the embedded broker forgot them."""
    await tx.execute(
        sa.update(_jobs)
        .where(_jobs.c.state == JobState.QUEUED, _jobs.c.admitted_at.is_not(None))
        .values(ring_at=tx.now())
    )


async def watched_sequences(tx: Tx, job_ids: Collection[int]) -> dict[int, int]:
    """The last event number of each job."""
    rows = await tx.execute(
        sa.select(_jobs.c.id, _jobs.c.last_sequence).where(_jobs.c.id.in_(job_ids))
    )
    return {row.id: row.last_sequence for row in rows}
