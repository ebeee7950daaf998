"""Carrying one claimed job to its end."""

from __future__ import annotations

import asyncio
from enum import Enum
from itertools import chain, repeat
from typing import Protocol

import structlog

from libs.common.crash import CrashPoints
from libs.common.errors import LeaseLostError
from libs.common.outcomes import Outcome
from services.worker.domain import Claim, HandBack, ImageToMake, JobOverError, Lease, merged
from services.worker.generation import GenerationError, ImageRequest, Reference, Usage
from services.worker.inhand import JobInHand
from services.worker.usecases.enhance_prompt import Enhanced, EnhancePrompt
from services.worker.usecases.make_image import MakeImage
from services.worker.usecases.references import LoadReferences

log = structlog.get_logger()


class Ending(Enum):
    """How the work on a job came to its end."""

    FINISHED = "finished"  # told enqueue so
    RELEASED = "released"  # given back to wait
    LOST = "lost"  # not this worker's any more
    LEFT = "left"  # images are missing, and the worker goes home: still to be released


class JobRecords(Protocol):
    """Who is told of the job."""

    async def record_failure(
        self, lease: Lease, index: int, outcome: Outcome, message: str
    ) -> None:
        """One image is given up; raises LeaseLostError."""
        ...

    async def finish(self, lease: Lease) -> str:
        """The job is settled; raises LeaseLostError."""
        ...

    async def release(
        self, lease: Lease, why: HandBack | None, *, limit_seconds: float | None = None
    ) -> str:
        """The job is given back; raises LeaseLostError."""
        ...


class RunJob:
    """Makes the missing images of a job concurrently, then ends it or gives it back."""

    def __init__(
        self,
        *,
        records: JobRecords,
        load_references: LoadReferences,
        enhance_prompt: EnhancePrompt,
        make_image: MakeImage,
        crash: CrashPoints,
    ) -> None:
        self._records = records
        self._load_references = load_references
        self._enhance_prompt = enhance_prompt
        self._make_image = make_image
        self._crash = crash

    async def __call__(self, job: JobInHand) -> Ending:
        """How it ended; faults of ours and of enqueue are raised."""
        try:
            return await self._run(job)
        except (LeaseLostError, JobOverError):
            return Ending.LOST

    async def _run(self, job: JobInHand) -> Ending:
        claim = job.claim
        faults: list[GenerationError] = []
        left: list[int] = []
        if claim.images:
            try:
                references = await self._load_references(claim)
            except GenerationError as fault:
                faults = await self._give_up_all(job, fault)
            else:
                made_of = await self._enhance_prompt(claim)
                faults, left = await self._make_all(job, made_of, references)
        if faults:
            await self._records.release(claim.lease, merged(faults))
            return Ending.RELEASED
        if left:
            return Ending.LEFT
        with job.busy():
            self._crash.here("W7")
            state = await self._records.finish(claim.lease)
        self._crash.here("W8")
        log.info("job.finished", state=state)
        return Ending.FINISHED

    async def _give_up_all(self, job: JobInHand, fault: GenerationError) -> list[GenerationError]:
        for image in job.claim.images:
            if await self._give_up(job, image.index, fault):
                return [fault]
        return []

    async def _make_all(
        self,
        job: JobInHand,
        made_of: Enhanced,
        references: tuple[Reference, ...],
    ) -> tuple[list[GenerationError], list[int]]:
        """The faults that hand the job back, and the images that were left to others."""
        # The words were found for all images; what they took is counted with the first.
        spent = chain([made_of.usage], repeat(Usage()))
        try:
            async with asyncio.TaskGroup() as group:
                works = {
                    image.index: group.create_task(self._make(job, image, references, also))
                    for image, also in zip(made_of.images, spent, strict=False)
                }
                for work in works.values():
                    job.image_worked_by(work)
        except ExceptionGroup as faults:
            raise _first(faults) from None
        # A task that was cancelled by itself does not end its group: the worker is leaving.
        left = [index for index, work in works.items() if work.cancelled()]
        if left and not job.leaving:
            # gRPC cancels a call whose request iterator fails; nobody asked for that.
            raise RuntimeError("an image's task was cancelled without a reason")
        ended = [work.result() for work in works.values() if not work.cancelled()]
        return [fault for fault in ended if fault is not None], left

    async def _make(
        self,
        job: JobInHand,
        image: ImageToMake,
        references: tuple[Reference, ...],
        spent: Usage,
    ) -> GenerationError | None:
        """None when the slot is settled, else the fault that hands the job back."""
        fault = await self._make_image(job, _request(job.claim, image, references), spent)
        if fault is not None and await self._give_up(job, image.index, fault):
            return fault
        return None

    async def _give_up(self, job: JobInHand, index: int, fault: GenerationError) -> bool:
        """True when the fault hands the job back; else the image is recorded as failed."""
        if job.claim.hands_back(fault.outcome):
            return True
        with job.busy():
            await self._records.record_failure(job.claim.lease, index, fault.outcome, fault.message)
        return False


def _request(claim: Claim, image: ImageToMake, references: tuple[Reference, ...]) -> ImageRequest:
    return ImageRequest(
        job_id=claim.lease.job_id,
        index=image.index,
        count=claim.count,
        prompt=image.prompt,
        references=references,
        aspect_ratio=claim.aspect_ratio,
        quality=claim.quality,
        format=claim.format,
    )


def _first(faults: ExceptionGroup[Exception]) -> Exception:
    """A lost lease before any other fault: it says what to do with the job."""
    for error in faults.exceptions:
        if isinstance(error, (LeaseLostError, JobOverError)):
            return error
    return faults.exceptions[0]
