"""Images: the slots of jobs. The caller holds the job's lock where it writes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from libs.common.errors import FieldViolation, InvalidArgumentError
from services.enqueue import tables
from services.enqueue.domain import Fault, Image, ImageState, Job
from services.enqueue.store.rows import image_of

_jobs = tables.jobs
_images = tables.images


async def of_jobs(tx: Tx, job_ids: Collection[int]) -> dict[int, tuple[Image, ...]]:
    """The slots of jobs, by index."""
    rows = await tx.execute(
        sa.select(_images)
        .where(_images.c.job_id.in_(job_ids))
        .order_by(_images.c.job_id, _images.c.image_index)
    )
    found: dict[int, list[Image]] = {}
    for row in rows:
        found.setdefault(row.job_id, []).append(image_of(row))
    return {job_id: tuple(images) for job_id, images in found.items()}


async def of_job(tx: Tx, job: Job) -> Job:
    """The job with its images read."""
    return job.with_images((await of_jobs(tx, [job.id])).get(job.id, ()))


async def settle(tx: Tx, job_id: int, index: int, values: dict[str, Any]) -> Image | None:
    """Settles a PENDING slot with these columns; None when it is settled or missing.

    Raises InvalidArgumentError when the file stands in another slot.
    """
    statement = (
        sa.update(_images)
        .where(
            _images.c.job_id == job_id,
            _images.c.image_index == index,
            _images.c.state == ImageState.PENDING,
        )
        .values(values)
        .returning(_images)
    )
    try:
        row = (await tx.execute(statement)).one_or_none()
    except sa.exc.IntegrityError:
        # images_file is the one constraint that a worker's values can meet.
        raise InvalidArgumentError(
            "the file stands in another slot",
            violations=[FieldViolation("file_id", "stands in another slot")],
        ) from None
    return image_of(row) if row else None


async def find(tx: Tx, job_id: int, index: int) -> Image | None:
    """One slot."""
    row = (
        await tx.execute(
            sa.select(_images).where(_images.c.job_id == job_id, _images.c.image_index == index)
        )
    ).one_or_none()
    return image_of(row) if row else None


async def cancel_pending(tx: Tx, job_ids: Collection[int]) -> None:
    """PENDING slots of canceled jobs → CANCELED."""
    await tx.execute(
        sa.update(_images)
        .where(_images.c.job_id.in_(job_ids), _images.c.state == ImageState.PENDING)
        .values(state=ImageState.CANCELED)
    )


async def fail_pending(tx: Tx, job_id: int, fault: Fault) -> int:
    """PENDING slots of a job given up → FAILED; how many."""
    changed = await tx.execute(
        sa.update(_images)
        .where(_images.c.job_id == job_id, _images.c.state == ImageState.PENDING)
        .values(state=ImageState.FAILED, error_reason=fault.reason, error_message=fault.message)
    )
    if changed.rowcount:
        await tx.execute(
            sa.update(_jobs)
            .where(_jobs.c.id == job_id)
            .values(images_failed=_jobs.c.images_failed + changed.rowcount)
        )
    return changed.rowcount
