"""Batches: one job per variant, enqueued, looked at and canceled together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from libs.common.errors import FailedPreconditionError, NotFoundError
from libs.common.request_keys import RequestKey
from services.enqueue.batch import Batch, VariantOutputs, outputs_by_variant
from services.enqueue.domain import Job, JobState
from services.enqueue.store import admission, audit, batches, explaining
from services.enqueue.usecases.crediting import balance
from services.enqueue.usecases.deps import Deps, cancel_jobs, lock_team
from services.enqueue.usecases.enqueueing import Draft, EnqueueJob
from services.enqueue.usecases.reviewing import hidden
from services.enqueue.usecases.storing import NewBatch, NewRequest


@dataclass(frozen=True, slots=True)
class BatchDraft:
    """A batch whose shape is right and whose references are not resolved yet.

    Attributes:
        name: for people.
        drafts: one job per variant; what they share they share to the reference.
    """

    name: str
    drafts: tuple[Draft, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch would take.

    Attributes:
        jobs: one per variant.
        images: of all of them.
        required: credits it would hold; 0 where the team needs none.
        available: credits the team has; 0 where it needs none.
        enough: whether they would do.
        seconds: how long it is likely to run; 0 where nothing is known.
    """

    jobs: int
    images: int
    required: int
    available: int
    enough: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchOutputs:
    """A batch and what it has made."""

    batch: Batch
    variants: list[VariantOutputs]


class EnqueueBatch:
    """Checks, resolves and stores batches, all or nothing.

    Args:
        deps: shared means.
        enqueue: what a single job goes through.
    """

    def __init__(self, deps: Deps, enqueue: EnqueueJob) -> None:
        self._deps = deps
        self._enqueue = enqueue

    async def __call__(self, key: RequestKey, draft: Callable[[], BatchDraft]) -> Batch:
        """The stored batch, or the one this request_id made before, as it stands.

        Raises as EnqueueJob does.
        """

        async def prepare() -> NewRequest:
            drafted = draft()
            specs = await self._enqueue.prepare(key.team, drafted.drafts)
            return NewRequest(key, specs, NewBatch(drafted.name))

        stored = await self._enqueue.store(key, prepare)
        return await get_batch(self._deps, key.team, stored.resource_id)

    async def estimate(self, team: str, draft: Callable[[], BatchDraft]) -> Estimate:
        """What the batch would take: everything is checked, nothing is written."""
        specs = await self._enqueue.prepare(team, draft().drafts, writes=False)
        count = sum(spec.count for spec in specs)
        async with self._deps.db.read(team) as tx:
            has = await balance(tx, self._deps, team)
            places = await admission.limit_of(tx, team)
        # How long jobs of a lane run says nothing of whose they are.
        async with self._deps.db.read_all() as tx:
            seconds = await explaining.recent_seconds(tx, specs[0].lane) or 0.0
        rounds = math.ceil(len(specs) / (places or self._deps.limits.live_jobs_per_team))
        return Estimate(
            jobs=len(specs),
            images=count,
            required=0 if has.unlimited else count,
            available=0 if has.unlimited else has.account.available,
            enough=has.enough_for(count),
            seconds=rounds * seconds,
        )


async def get_batch(deps: Deps, team: str, batch_id: int) -> Batch:
    """A team's batch as it stands; NotFoundError."""
    async with deps.db.read(team) as tx:
        batch = await batches.find(tx, batch_id, team)
    if batch is None:
        raise NotFoundError("batch")
    return batch


async def list_batches(deps: Deps, team: str, *, before_id: int | None, limit: int) -> list[Batch]:
    """A page of a team's batches, newest first."""
    async with deps.db.read(team) as tx:
        return await batches.page(tx, team, before_id=before_id, limit=limit)


async def cancel_batch(deps: Deps, team: str, batch_id: int, *, actor: str) -> Batch:
    """Cancels every job of a batch that has not ended; their workers are told at once.

    Raises:
        NotFoundError: not this team's.
        FailedPreconditionError: BATCH_TERMINAL, every job has succeeded or failed.
    """
    async with deps.db.transaction(team) as tx:
        team_limit = await lock_team(tx, team)
        locked = await batches.lock_jobs(tx, batch_id, team)
        canceled = await cancel_jobs(tx, deps, locked, team_limit=team_limit)
        batch = await batches.find(tx, batch_id, team)
        if batch is None:
            raise NotFoundError("batch")
        # Canceled before, or just now; a canceled retry does not show in the batch's counts.
        if all(job.state in (JobState.SUCCEEDED, JobState.FAILED) for job in locked):
            raise FailedPreconditionError("every job has ended", reason="BATCH_TERMINAL")
        if canceled:  # asked again, it does nothing, and nobody did it
            details = {"batch_id": batch_id, "job_ids": [job.id for job in canceled]}
            await audit.add(tx, team, actor, "CANCEL_BATCH", details=details)
    return batch


async def get_outputs(deps: Deps, team: str, batch_id: int) -> BatchOutputs:
    """A batch and what it has made that may be shown, for the packager; NotFoundError."""
    async with deps.db.read(team) as tx:
        batch = await batches.find(tx, batch_id, team)
        if batch is None:
            raise NotFoundError("batch")
        found = await batches.jobs_of(tx, batch_id, team)
    return BatchOutputs(batch, outputs_by_variant([_shown(deps, job) for job in found]))


def _shown(deps: Deps, job: Job) -> Job:
    return job.with_images(()) if hidden(deps, job) else job
