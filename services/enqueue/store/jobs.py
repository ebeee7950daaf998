"""Jobs: read and move; new ones: `new_jobs`. Every move of state is guarded in its WHERE."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import (
    ArchiveState,
    Fault,
    Job,
    JobState,
    sources_of,
)
from services.enqueue.store import images
from services.enqueue.store.rows import job_of

_jobs = tables.jobs
_paused = tables.paused_lanes


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which of a team's jobs; empty fields mean all."""

    states: tuple[JobState, ...] = ()
    type: str = ""
    variant: str = ""
    created_from: datetime | None = None
    created_before: datetime | None = None
    batch_id: int = 0


async def find(tx: Tx, job_id: int, team: str | None = None) -> Job | None:
    """One job with its images; of that team only when one is given."""
    found = await find_many(tx, [job_id], team)
    return found[0] if found else None


async def find_many(tx: Tx, job_ids: Collection[int], team: str | None = None) -> list[Job]:
    """Jobs with their images, newest first, in two queries."""
    if not job_ids:
        return []
    statement = sa.select(_jobs).where(_jobs.c.id.in_(job_ids)).order_by(_jobs.c.id.desc())
    if team is not None:
        statement = statement.where(_jobs.c.team == team)
    rows = (await tx.execute(statement)).all()
    found = await images.of_jobs(tx, [row.id for row in rows])
    return [job_of(row, found.get(row.id, ())) for row in rows]


async def page(
    tx: Tx, team: str, which: JobFilter, *, before_id: int | None, limit: int
) -> list[Job]:
    """A team's jobs with id below before_id, newest first."""
    statement = sa.select(_jobs.c.id).where(_jobs.c.team == team)
    if before_id is not None:
        statement = statement.where(_jobs.c.id < before_id)
    if which.states:
        statement = statement.where(_jobs.c.state.in_(which.states))
    if which.type:
        statement = statement.where(_jobs.c.type == which.type)
    if which.variant:
        statement = statement.where(_jobs.c.variant == which.variant)
    if which.batch_id:
        statement = statement.where(_jobs.c.batch_id == which.batch_id)
    if which.created_from is not None:
        statement = statement.where(_jobs.c.created_at >= which.created_from)
    if which.created_before is not None:
        statement = statement.where(_jobs.c.created_at < which.created_before)
    ids = (await tx.execute(statement.order_by(_jobs.c.id.desc()).limit(limit))).scalars().all()
    return await find_many(tx, ids, team)


async def last_sequence(tx: Tx, job_id: int, team: str) -> int | None:
    """The number of a team's job's last event; None where the team has no such job."""
    statement = sa.select(_jobs.c.last_sequence).where(_jobs.c.id == job_id, _jobs.c.team == team)
    sequence: int | None = await tx.scalar(statement)
    return sequence


async def lock(tx: Tx, job_id: int) -> Job | None:
    """One job without its images, its row locked until the transaction ends."""
    row = (
        await tx.execute(
            sa.select(_jobs).where(_jobs.c.id == job_id).with_for_update(key_share=True)
        )
    ).one_or_none()
    return job_of(row) if row else None


async def team_of(tx: Tx, job_id: int) -> str | None:
    """Whose job it is; for taking the team's lock before the job's."""
    team: str | None = await tx.scalar(sa.select(_jobs.c.team).where(_jobs.c.id == job_id))
    return team


async def claim(
    tx: Tx, job_id: int, *, claim_id: str, worker: str, lease_seconds: float
) -> Job | None:
    """QUEUED → RUNNING for an admitted job: a new fence, a lease, one more attempt and event.

    None for all others, and for jobs of a paused lane.
    """
    row = (
        await tx.execute(
            sa.update(_jobs)
            .where(
                _jobs.c.id == job_id,
                _jobs.c.state == JobState.QUEUED,
                _jobs.c.admitted_at.is_not(None),
                ~sa.exists().where(_paused.c.lane == _jobs.c.lane),
            )
            .values(
                state=JobState.RUNNING,
                fence=_jobs.c.fence + 1,
                attempts=_jobs.c.attempts + 1,
                last_sequence=_jobs.c.last_sequence + 1,
                claim_id=claim_id,
                worker=worker,
                lease_expires_at=tx.after(lease_seconds),
                started_at=sa.func.coalesce(_jobs.c.started_at, tx.now()),
                ring_at=None,
                rings=0,
            )
            .returning(_jobs)
        )
    ).one_or_none()
    return job_of(row) if row else None


async def claimed_by(tx: Tx, job_id: int, claim_id: str) -> Job | None:
    """The running job of a claim made before, for a claim whose answer was lost."""
    row = (
        await tx.execute(
            sa.select(_jobs).where(
                _jobs.c.id == job_id,
                _jobs.c.claim_id == claim_id,
                _jobs.c.state == JobState.RUNNING,
            )
        )
    ).one_or_none()
    return job_of(row) if row else None


async def count_image(tx: Tx, job_id: int, *, done: int = 0, failed: int = 0) -> Job:
    """Counts a settled image and one event; the caller holds the job's lock."""
    row = (
        await tx.execute(
            sa.update(_jobs)
            .where(_jobs.c.id == job_id)
            .values(
                images_done=_jobs.c.images_done + done,
                images_failed=_jobs.c.images_failed + failed,
                last_sequence=_jobs.c.last_sequence + 1,
            )
            .returning(_jobs)
        )
    ).one()
    return job_of(row)


async def count_lost_worker(tx: Tx, job_id: int) -> None:
    """Counts the claim as lost with its worker, not as an attempt; the caller holds the lock."""
    await tx.execute(
        sa.update(_jobs)
        .where(_jobs.c.id == job_id)
        .values(attempts=_jobs.c.attempts - 1, lost_workers=_jobs.c.lost_workers + 1)
    )


async def end(
    tx: Tx,
    job_id: int,
    state: JobState,
    fault: Fault | None,
    *,
    archive_ring: float | None,
    confirm: float,
    dead: bool = False,
) -> Job | None:
    """Moves a job to a final state and counts one event; None when it may not move there.

    In `confirm` seconds assets is asked whether it has heard.
    """
    wants_zip = archive_ring is not None
    row = (
        await tx.execute(
            sa.update(_jobs)
            .where(_jobs.c.id == job_id, _jobs.c.state.in_(sources_of(state)))
            .values(
                **_ending(tx, state, confirm),
                error_reason=fault.reason if fault else None,
                error_message=fault.message if fault else None,
                archive_state=ArchiveState.PENDING if wants_zip else ArchiveState.NONE,
                archive_ring_at=tx.after(archive_ring) if archive_ring is not None else None,
                dead=dead,
            )
            .returning(_jobs)
        )
    ).one_or_none()
    return job_of(row) if row else None


async def cancel(tx: Tx, job_ids: Collection[int], *, confirm: float) -> list[Job]:
    """Moves those jobs that have not ended to CANCELED, by id, and counts one event of each."""
    rows = await tx.execute(
        sa.update(_jobs)
        .where(_jobs.c.id.in_(job_ids), _jobs.c.state.in_(sources_of(JobState.CANCELED)))
        .values(_ending(tx, JobState.CANCELED, confirm))
        .returning(_jobs)
    )
    return sorted((job_of(row) for row in rows), key=lambda job: job.id)


def _ending(tx: Tx, state: JobState, confirm: float) -> dict[str, Any]:
    """What every ending sets, and one event."""
    return {
        "state": state,
        "last_sequence": _jobs.c.last_sequence + 1,
        "finished_at": tx.now(),
        "credits_released": _jobs.c.credits_held - _jobs.c.images_done,
        "lease_expires_at": None,
        "ring_at": None,
        "not_before": None,
        "confirm_at": tx.after(confirm),
    }


async def requeue(
    tx: Tx,
    job_id: int,
    *,
    wait_seconds: float | None,
    ring_seconds: float,
    attempts: int = 0,
    lost: int = 0,
    for_rate: bool = False,
) -> Job:
    """RUNNING → QUEUED and one event; the caller holds the job's lock.

    Args:
        tx: the transaction.
        job_id: the job.
        wait_seconds: None keeps the team's place and rings at once; else the place is given up
            and the job waits so long.
        ring_seconds: when to ring again, where the place is kept.
        attempts: added to the attempts (-1 gives one back).
        lost: added to the lost workers.
        for_rate: it waits because the provider takes no more calls.
    """
    keeps_place = wait_seconds is None
    values: dict[str, Any] = {
        "state": JobState.QUEUED,
        "last_sequence": _jobs.c.last_sequence + 1,
        "attempts": _jobs.c.attempts + attempts,
        "lost_workers": _jobs.c.lost_workers + lost,
        "claim_id": None,
        "worker": None,
        "lease_expires_at": None,
        "rings": 0,
    }
    if wait_seconds is None:
        values |= {"dispatch_no": _jobs.c.dispatch_no + 1, "ring_at": tx.after(ring_seconds)}
    else:
        values |= {"admitted_at": None, "ring_at": None, "not_before": tx.after(wait_seconds)}
        if for_rate:
            values["rate_wait_until"] = tx.after(wait_seconds)
            values["rate_waits"] = _jobs.c.rate_waits + 1
    row = (
        await tx.execute(
            sa.update(_jobs)
            .where(_jobs.c.id == job_id, _jobs.c.state == JobState.RUNNING)
            .values(values)
            .returning(_jobs)
        )
    ).one()
    assert keeps_place == (row.admitted_at is not None)
    return job_of(row)
