"""The zip's state on its job."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import Archive, ArchiveState, Job
from services.enqueue.store.rows import job_of

_jobs = tables.jobs


async def record(tx: Tx, job_id: int, archive: Archive) -> Job:
    """Sets how the zip came out, and one event; the caller holds the job's lock."""
    row = (
        await tx.execute(
            sa.update(_jobs)
            .where(_jobs.c.id == job_id)
            .values(
                last_sequence=_jobs.c.last_sequence + 1,
                archive_state=archive.state,
                archive_file_id=archive.file_id or None,
                archive_filename=archive.filename or None,
                archive_size_bytes=archive.size_bytes or None,
                archive_error_reason=archive.fault.reason if archive.fault else None,
                archive_error_message=archive.fault.message if archive.fault else None,
                archive_ring_at=None,
            )
            .returning(_jobs)
        )
    ).one()
    return job_of(row)


async def overdue(tx: Tx, limit: int) -> list[tuple[Job, int]]:
    """Jobs whose zip has not come in time, with how often it was asked for again."""
    rows = await tx.execute(
        sa.select(_jobs)
        .where(_jobs.c.archive_ring_at <= tx.now(), _jobs.c.archive_state == ArchiveState.PENDING)
        .order_by(_jobs.c.archive_ring_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [(job_of(row), row.archive_rings) for row in rows]


async def rung(tx: Tx, job_id: int, next_seconds: float) -> None:
    """Notes that the packager was asked again, and when to do it next."""
    await tx.execute(
        sa.update(_jobs)
        .where(_jobs.c.id == job_id)
        .values(archive_rings=_jobs.c.archive_rings + 1, archive_ring_at=tx.after(next_seconds))
    )
