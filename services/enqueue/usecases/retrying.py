"""Running failed jobs again, as new jobs with the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from libs.common.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)
from libs.common.request_keys import RequestKey
from services.enqueue.batch import Batch, silent
from services.enqueue.domain import ImageState, Job, JobSpec, JobState
from services.enqueue.references import DraftRef, request_of
from services.enqueue.store import batches, jobs, retries
from services.enqueue.usecases.deps import Deps
from services.enqueue.usecases.enqueueing import EnqueueJob
from services.enqueue.usecases.refusing import ALREADY_RETRIED, already_retried
from services.enqueue.usecases.storing import NewRequest

MAX_NAMED_FILES = 50
# Each turn but the first is one where somebody else retried a job of the batch meanwhile.
BATCH_TURNS = 3


@dataclass(frozen=True, slots=True)
class RetriedBatch:
    """A batch as it stands, and its new jobs."""

    batch: Batch
    job_ids: tuple[int, ...]


class Retry:
    """Makes new jobs of failed ones; they take the places of those in their batch.

    Args:
        deps: shared means.
        enqueue: what every new job goes through.
    """

    def __init__(self, deps: Deps, enqueue: EnqueueJob) -> None:
        self._deps = deps
        self._enqueue = enqueue

    async def job(
        self, key: RequestKey, job_id: int, *, only_missing: bool, requeued_by: str = ""
    ) -> Job:
        """The new job, or the one this request_id made before.

        Args:
            key: the caller's key.
            job_id: the failed job.
            only_missing: make just the images that are not DONE.
            requeued_by: the operator who asks for it, to be audited; empty: the team itself.

        Raises:
            NotFoundError: not this team's.
            FailedPreconditionError: JOB_NOT_RETRYABLE, it has not failed, or lacks no image;
                JOB_ALREADY_RETRIED, with the retry's id; INPUT_GONE.
        """

        async def prepare() -> NewRequest:
            async with self._deps.db.read(key.team) as tx:
                job = await jobs.find(tx, job_id, key.team)
                retried = await retries.retries_of(tx, [job_id])
            if job is None:
                raise NotFoundError("job")
            if not _may_retry(job, only_missing=only_missing):
                raise FailedPreconditionError(
                    "the job has not failed, or lacks no image", reason="JOB_NOT_RETRYABLE"
                )
            if job_id in retried:
                raise already_retried(retried[job_id])
            specs = await self._again(key.team, [job], only_missing=only_missing)
            return NewRequest(key, specs, requeued_by=requeued_by)

        return await self._enqueue.job_of(key, await self._enqueue.store(key, prepare))

    async def batch(self, key: RequestKey, batch_id: int, *, only_missing: bool) -> RetriedBatch:
        """The batch with its failed jobs run again, or as this request_id did before.

        Raises:
            NotFoundError: not this team's.
            FailedPreconditionError: BATCH_NOT_RETRYABLE, no job of it has failed; INPUT_GONE.
        """

        async def prepare() -> NewRequest:
            failed = await self._failed(key.team, batch_id, only_missing=only_missing)
            return NewRequest(key, await self._again(key.team, failed, only_missing=only_missing))

        for turn in range(BATCH_TURNS):
            try:
                stored = await self._enqueue.store(key, prepare)
                break
            except FailedPreconditionError as error:
                if error.reason != ALREADY_RETRIED or turn == BATCH_TURNS - 1:
                    raise
        return await self._retried(key.team, batch_id, stored.resource_id)

    async def _failed(self, team: str, batch_id: int, *, only_missing: bool) -> list[Job]:
        """The failed jobs that speak for a batch; at least one."""
        async with self._deps.db.read(team) as tx:
            known = await batches.find(tx, batch_id, team) is not None
            found = await batches.jobs_of(tx, batch_id, team) if known else []
        if not known:
            raise NotFoundError("batch")
        quiet = silent(found)
        failed = [
            job
            for job in found
            if job.id not in quiet and _may_retry(job, only_missing=only_missing)
        ]
        if not failed:
            raise FailedPreconditionError("no job of it has failed", reason="BATCH_NOT_RETRYABLE")
        return sorted(failed, key=lambda job: job.spec.variant_index)

    async def _retried(self, team: str, batch_id: int, first_id: int) -> RetriedBatch:
        """The batch, and the jobs that the request of this first one made."""
        async with self._deps.db.read(team) as tx:
            batch = await batches.find(tx, batch_id, team)
            tokens = await batches.pin_tokens(tx, batch_id, team)
        if batch is None or first_id not in tokens:
            raise NotFoundError("batch")
        request = request_of(tokens[first_id])
        made = [job_id for job_id, token in tokens.items() if request_of(token) == request]
        return RetriedBatch(batch, tuple(made))

    async def _again(
        self, team: str, failed: Sequence[Job], *, only_missing: bool
    ) -> tuple[JobSpec, ...]:
        """The specs of the new jobs, their inputs resolved and pinned anew."""
        refs = [
            tuple({DraftRef(str(i.file_id), "", i.file_id): None for i in job.spec.inputs})
            for job in failed
        ]
        try:
            found = await self._enqueue.resolve(team, refs)
        except InvalidArgumentError as error:
            gone = sorted({int(v.field) for v in error.violations if v.field.isdecimal()})
            if not gone:
                raise
            raise FailedPreconditionError(
                "an input was deleted since",
                reason="INPUT_GONE",
                metadata={"fileIds": ",".join(map(str, gone[:MAX_NAMED_FILES]))},
            ) from None
        return tuple(
            _spec_again(job, token, only_missing=only_missing)
            for job, token in zip(failed, found.tokens, strict=True)
        )


async def list_dead(deps: Deps, team: str, *, before_id: int | None, limit: int) -> list[Job]:
    """A page of dead jobs that were not run again, newest first; of all teams for an empty one."""
    async with deps.db.read_all() as tx:
        return await retries.dead(tx, team, before_id=before_id, limit=limit)


async def team_of_dead(deps: Deps, job_id: int) -> str:
    """Whose dead job it is.

    Raises:
        NotFoundError: there is no such job.
        FailedPreconditionError: JOB_NOT_DEAD.
    """
    async with deps.db.read_all() as tx:
        job = await jobs.find(tx, job_id)
    if job is None:
        raise NotFoundError("job")
    if not job.dead:
        raise FailedPreconditionError("the job is not dead", reason="JOB_NOT_DEAD")
    return job.spec.team


def _missing(job: Job) -> list[int]:
    return [image.index for image in job.images if image.state is not ImageState.DONE]


def _may_retry(job: Job, *, only_missing: bool) -> bool:
    return job.state is JobState.FAILED and (not only_missing or bool(_missing(job)))


def _spec_again(job: Job, pin_token: str, *, only_missing: bool) -> JobSpec:
    spec = replace(job.spec, pin_token=pin_token, retry_of=job.id)
    missing = _missing(job)
    if not only_missing or len(missing) == job.spec.count:
        return spec
    return replace(
        spec,
        count=len(missing),
        shots=tuple(job.spec.shot(index) for index in missing),
        shots_of=job.spec.shot_count,
    )
