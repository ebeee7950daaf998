"""Batches: what their jobs say together. Standard library only.

A batch has no state of its own. Each of its variants is spoken for by one job: the newest that was
not a canceled retry. So a failed job that was retried is left out, and speaks again where its retry
is canceled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.enqueue.domain import Job, JobState, Usage


class BatchState(StrEnum):
    """Where a batch stands."""

    ACTIVE = "ACTIVE"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many of a batch's jobs stand where."""

    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0

    @property
    def total(self) -> int:
        """All."""
        return self.queued + self.running + self.succeeded + self.failed + self.canceled

    @property
    def live(self) -> int:
        """Those that have not ended."""
        return self.queued + self.running


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """How many of their images stand where."""

    pending: int = 0
    done: int = 0
    failed: int = 0
    canceled: int = 0

    @property
    def total(self) -> int:
        """All."""
        return self.pending + self.done + self.failed + self.canceled


@dataclass(frozen=True, slots=True)
class Tally:
    """The speaking jobs of one state: how many, their images, and when the last of them ended."""

    state: JobState
    jobs: int
    images: int
    images_done: int
    images_failed: int
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it stands.

    Attributes:
        job_ids: the jobs that speak for it, by variant.
        usage: of all its images, retried jobs included.
    """

    id: int
    team: str
    name: str
    created_at: datetime
    jobs: JobCounts
    images: ImageCounts
    job_ids: tuple[int, ...]
    usage: Usage
    finished_at: datetime | None

    @property
    def state(self) -> BatchState:
        """What its jobs say together."""
        if self.jobs.live:
            return BatchState.ACTIVE
        if self.jobs.failed:
            return BatchState.FAILED
        return BatchState.CANCELED if self.jobs.canceled else BatchState.SUCCEEDED

    @property
    def ended(self) -> bool:
        """Whether each of its jobs has ended; a retry may begin it again."""
        return self.state is not BatchState.ACTIVE


def job_counts(tallies: Iterable[Tally]) -> JobCounts:
    """The jobs of a batch, counted."""
    return JobCounts(**{tally.state.lower(): tally.jobs for tally in tallies})


def image_counts(tallies: Iterable[Tally]) -> ImageCounts:
    """Their images, counted; what is not settled is PENDING, or CANCELED with its job."""
    pending = done = failed = canceled = 0
    for tally in tallies:
        done += tally.images_done
        failed += tally.images_failed
        unsettled = tally.images - tally.images_done - tally.images_failed
        if tally.state is JobState.CANCELED:
            canceled += unsettled
        else:
            pending += unsettled
    return ImageCounts(pending, done, failed, canceled)


def finished_at(tallies: Iterable[Tally]) -> datetime | None:
    """When the last job ended; None while one lives."""
    ends = [tally.finished_at for tally in tallies]
    return None if None in ends else max((end for end in ends if end is not None), default=None)


@dataclass(frozen=True, slots=True)
class VariantOutputs:
    """What one variant of a batch made: shot → file id, by shot."""

    variant_index: int
    variant: str
    outputs: dict[int, int]


def silent(jobs: Iterable[Job]) -> set[int]:
    """Those of a batch's jobs (ids) that do not speak: retried ones, and canceled retries."""
    quiet: set[int] = set()
    for job in jobs:
        if job.spec.retry_of:
            quiet.add(job.id if job.state is JobState.CANCELED else job.spec.retry_of)
    return quiet


def outputs_by_variant(jobs: Iterable[Job]) -> list[VariantOutputs]:
    """What a batch's jobs (all of them, with their images) made, by variant.

    A variant's outputs are its newest job's; where that makes only the missing images, those before
    it fill up the rest.
    """
    known = {job.id: job for job in jobs}
    quiet = silent(known.values())
    speaking = [job for job in known.values() if job.id not in quiet]
    return [
        VariantOutputs(job.spec.variant_index, job.spec.labels.variant, _outputs(job, known))
        for job in sorted(speaking, key=lambda job: job.spec.variant_index)
    ]


def _outputs(job: Job, known: dict[int, Job]) -> dict[int, int]:
    found: dict[int, int] = {}
    at: Job | None = job
    while at is not None:
        for image in at.images:
            if image.made is not None:
                found.setdefault(image.shot, image.made.file_id)
        at = known.get(at.spec.retry_of) if at.spec.shots else None
    return dict(sorted(found.items()))
