"""ReviewJob and RateImage: what people say of what was made. Each word is audited."""

from __future__ import annotations

from libs.common.errors import FailedPreconditionError, NotFoundError
from services.enqueue.domain import (
    ArchiveState,
    Image,
    ImageState,
    Job,
    ReviewState,
    wants_archive,
)
from services.enqueue.store import audit, images, jobs, reviews
from services.enqueue.usecases.deps import Deps, announce_ended


def hidden(deps: Deps, job: Job) -> bool:
    """Whether the job's images may not be shown: a review is wanted and has not approved them."""
    return deps.limits.review_required and job.review.state is not ReviewState.APPROVED


async def review_job(
    deps: Deps, team: str, job_id: int, state: ReviewState, *, reviewer: str, notes: str
) -> Job:
    """Says what a person thinks of an ended job's images; the last word stands.

    Where unreviewed images are hidden, everybody who keeps or shows them is told (job.ended comes
    again), and the first approval makes the zip due.

    Raises:
        NotFoundError: not this team's.
        FailedPreconditionError: JOB_NOT_ENDED.
    """
    async with deps.db.transaction(team) as tx:
        job = await jobs.lock(tx, job_id)
        if job is None or job.spec.team != team:
            raise NotFoundError("job")
        if not job.terminal:
            raise FailedPreconditionError("the job has not ended yet", reason="JOB_NOT_ENDED")
        ring = deps.limits.archive_ring_seconds if _makes_zip_due(deps, job, state) else None
        required = deps.limits.review_required
        reviewed = await reviews.record(
            tx,
            job,
            state,
            reviewer=reviewer,
            notes=notes,
            archive_ring=ring,
            confirm=deps.limits.confirm_seconds if required else None,
        )
        details = {"old": job.review.state, "new": state, "notes": notes}
        await audit.add(tx, team, reviewer, "REVIEW_JOB", job_id=job_id, details=details)
        whole = await images.of_job(tx, reviewed)
        if required:
            await announce_ended(tx, deps, [whole])
    return whole


def _makes_zip_due(deps: Deps, job: Job, state: ReviewState) -> bool:
    """Only where reviews hold zips back; a zip that failed while it was hidden gets its chance."""
    return (
        deps.limits.review_required
        and state is ReviewState.APPROVED
        and wants_archive(job.state, job.spec.count)
        and job.archive.state in (ArchiveState.NONE, ArchiveState.FAILED)
    )


async def rate_image(
    deps: Deps, team: str, job_id: int, index: int, rating: int, *, actor: str
) -> Image:
    """Rates one DONE image, 1 to 5; 0 takes the rating back.

    Raises:
        NotFoundError: no such image of the team.
        FailedPreconditionError: IMAGE_NOT_DONE.
    """
    async with deps.db.transaction(team) as tx:
        image = await reviews.lock_image(tx, team, job_id, index)
        if image is None:
            raise NotFoundError("image")
        if image.state is not ImageState.DONE:
            raise FailedPreconditionError("the image is not there", reason="IMAGE_NOT_DONE")
        rated = await reviews.rate(tx, job_id, index, rating)
        details = {"image_index": index, "old": image.rating, "new": rating}
        await audit.add(tx, team, actor, "RATE_IMAGE", job_id=job_id, details=details)
    return rated
