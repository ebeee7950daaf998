"""What people say of ended jobs: reviews, and ratings of images."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from libs.common.db import Instant, Tx
from services.enqueue import tables
from services.enqueue.domain import ArchiveState, Image, ImageState, Job, ReviewState
from services.enqueue.store.rows import image_of, job_of

_jobs = tables.jobs
_images = tables.images

_TICK = timedelta(microseconds=1)


async def record(
    tx: Tx,
    job: Job,
    state: ReviewState,
    *,
    reviewer: str,
    notes: str,
    archive_ring: float | None,
    confirm: float | None,
) -> Job:
    """Sets a job's review; the caller holds the job's lock.

    Args:
        tx: the transaction.
        job: the job as it stands.
        state: what was said.
        reviewer: who.
        notes: why.
        archive_ring: makes the zip due, and says in how many seconds the packager is asked again;
            None leaves the zip as it is.
        confirm: seconds until assets is asked whether it has heard; None: it is not told.
    """
    values: dict[str, Any] = {
        "review_state": state,
        "reviewer": reviewer,
        "reviewed_at": _later(tx, job.review.at),
        "review_notes": notes,
    }
    if confirm is not None:
        values["confirm_at"] = tx.after(confirm)
    if archive_ring is not None:
        values |= {
            "archive_state": ArchiveState.PENDING,
            "archive_ring_at": tx.after(archive_ring),
            "archive_rings": 0,
            "archive_error_reason": None,
            "archive_error_message": None,
        }
    row = await tx.execute(
        sa.update(_jobs).where(_jobs.c.id == job.id).values(values).returning(_jobs)
    )
    return job_of(row.one())


def _later(tx: Tx, last: datetime | None) -> sa.ColumnElement[datetime]:
    """Now, and in any case after the last review: readers keep the latest, whatever clocks do."""
    if last is None:
        return tx.now()
    latest = sa.func.greatest if tx.on_postgres else sa.func.max
    return latest(tx.now(), sa.literal(last + _TICK, Instant()), type_=Instant())


async def lock_image(tx: Tx, team: str, job_id: int, index: int) -> Image | None:
    """One image of a team's job, its row locked until the transaction ends."""
    statement = sa.select(_images).where(
        _images.c.job_id == job_id, _images.c.image_index == index, _images.c.team == team
    )
    row = (await tx.execute(statement.with_for_update(key_share=True))).one_or_none()
    return image_of(row) if row else None


async def rate(tx: Tx, job_id: int, index: int, rating: int) -> Image:
    """Sets a DONE image's rating; the caller holds its lock."""
    row = await tx.execute(
        sa.update(_images)
        .where(
            _images.c.job_id == job_id,
            _images.c.image_index == index,
            _images.c.state == ImageState.DONE,
        )
        .values(rating=rating)
        .returning(_images)
    )
    return image_of(row.one())
