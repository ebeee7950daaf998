"""What workers do to jobs. Every write holds the job's lock and checks the fence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from libs.common.backoff import Backoff
from libs.common.db import Tx
from libs.common.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    LeaseLostError,
    NotFoundError,
)
from libs.common.outcomes import POLICIES, Outcome
from services.enqueue.domain import (
    EventKind,
    Fault,
    Image,
    ImageState,
    Job,
    JobState,
    MadeImage,
    outcome_of,
)
from services.enqueue.store import explaining, images, jobs, leases, ledger
from services.enqueue.store.events import about
from services.enqueue.store.leases import Presence
from services.enqueue.usecases.deps import Deps, admit_more, end_job, lock_team, send, tell

# Between attempts; from a second or two to a minute.
_BACKOFF = Backoff(first_seconds=2.0, max_seconds=60.0)
# One image given up is the job's own fault; these words open the job's error.
_SOME_FAILED = "not every image could be made"
# What an image ends by only when no attempt is left.
_TRIED_AGAIN = frozenset(
    outcome.value
    for outcome, policy in POLICIES.items()
    if policy.hands_back and policy.burns_attempt
)


@dataclass(frozen=True, slots=True)
class Held:
    """A worker's hold on a job: its id and the fence of the claim."""

    job_id: int
    fence: int


async def claim_job(deps: Deps, job_id: int, claim_id: str, worker: str) -> Job:
    """Takes an admitted job for a worker; the job, RUNNING, with its images.

    Raises:
        NotFoundError: there is no such job.
        FailedPreconditionError: JOB_NOT_CLAIMABLE, not admitted, taken, or over.
    """
    async with deps.db.duty() as tx:
        job = await jobs.claim(
            tx, job_id, claim_id=claim_id, worker=worker, lease_seconds=deps.limits.lease_seconds
        )
        if job is None:
            # The answer to this very claim may have been lost on the way.
            job = await jobs.claimed_by(tx, job_id, claim_id)
            if job is None:
                raise await _not_claimable(tx, job_id)
        else:
            await tell(tx, deps, [about(job, EventKind.STARTED)])
        whole = await images.of_job(tx, job)
    deps.crash.here("E8")
    return whole


async def _not_claimable(tx: Tx, job_id: int) -> Exception:
    if await jobs.team_of(tx, job_id) is None:
        return NotFoundError("job")
    return FailedPreconditionError("the job is not to be claimed now", reason="JOB_NOT_CLAIMABLE")


async def renew_leases(
    deps: Deps, worker: Presence, held: Mapping[int, int], *, fresh: bool = False
) -> list[int]:
    """Renews a worker's leases (job id → fence) and notes its presence; the ids it has lost.

    Fresh: the process has just begun, and what an earlier one of its name held is for the reaper.
    """
    async with deps.db.duty() as tx:
        if fresh:
            await leases.revoke(tx, worker.name)
        renewed = await leases.renew(tx, held, deps.limits.lease_seconds)
        await leases.present(tx, worker, len(held))
    return sorted(set(held) - renewed)


async def record_image(deps: Deps, held: Held, index: int, made: MadeImage) -> Image:
    """Settles a slot as DONE; a settled slot is answered as it is.

    Raises:
        LeaseLostError: the claim is not the job's any more.
        InvalidArgumentError: no such slot.
    """
    async with deps.db.duty() as tx:
        job = await _locked(tx, held, index)
        values: dict[str, Any] = {
            "state": ImageState.DONE,
            "attempt": job.attempts,
            "file_id": made.file_id,
            "content_type": made.content_type,
            "width": made.width,
            "height": made.height,
            "size_bytes": made.size_bytes,
            "sha256": made.sha256,
            "model": made.model,
            "prompt_tokens": made.usage.prompt_tokens,
            "output_tokens": made.usage.output_tokens,
            "total_tokens": made.usage.total_tokens,
            "cost_micros": made.usage.cost_micros,
            "done_at": tx.now(),
        }
        image = await images.settle(tx, job.id, index, values)
        if image is None:
            image = await images.find(tx, job.id, index)
        else:
            counted = await jobs.count_image(tx, job.id, done=1)
            if job.hold is not None:
                await ledger.capture(tx, job, index)
            done = about(counted, EventKind.IMAGE_DONE, index=index, file_id=made.file_id)
            await tell(tx, deps, [done])
    deps.crash.here("E9")
    assert image is not None  # checked by _locked
    return replace(image, shot=job.spec.shot(index))


async def record_image_failure(deps: Deps, held: Held, index: int, fault: Fault) -> Image:
    """Settles a slot as FAILED; a settled slot is answered as it is. Errors as record_image."""
    async with deps.db.duty() as tx:
        job = await _locked(tx, held, index)
        values = {
            "state": ImageState.FAILED,
            "attempt": job.attempts,
            "error_reason": fault.reason,
            "error_message": fault.message,
        }
        image = await images.settle(tx, job.id, index, values)
        if image is None:
            image = await images.find(tx, job.id, index)
        else:
            counted = await jobs.count_image(tx, job.id, failed=1)
            failed = about(counted, EventKind.IMAGE_FAILED, index=index, fault=fault)
            await tell(tx, deps, [failed])
    assert image is not None  # checked by _locked
    return replace(image, shot=job.spec.shot(index))


async def finish_job(deps: Deps, held: Held) -> JobState:
    """Ends a settled job; repeating it after the end answers the same.

    Raises:
        LeaseLostError: the claim is not the job's any more.
        FailedPreconditionError: IMAGES_PENDING.
    """
    async with deps.db.duty() as tx:
        team = await _team(tx, held.job_id)
        team_limit = await lock_team(tx, team)
        job = await jobs.lock(tx, held.job_id)
        assert job is not None  # jobs with a team are not deleted while they live
        # The fence outlives the end, so that a lost answer can be asked for again.
        if job.fence == held.fence and job.state in (JobState.SUCCEEDED, JobState.FAILED):
            return job.state
        _check_held(job, held)
        state = outcome_of(job)
        fault, dead = None, False
        if state is not JobState.SUCCEEDED:
            fault, dead = await _first_fault(tx, job)
        ended = await end_job(tx, deps, job, state, fault, team_limit=team_limit, dead=dead)
        assert ended is not None  # RUNNING, and locked
    deps.crash.here("E10")
    return state


async def _first_fault(tx: Tx, job: Job) -> tuple[Fault, bool]:
    """The job's error, and whether it is dead.

    The error is the first failed image's reason, and how many failed. Dead is a job one of whose
    images would have got another attempt, had there been one left.
    """
    whole = await images.of_job(tx, job)
    failed = [image for image in whole.images if image.fault is not None]
    first = failed[0].fault
    assert first is not None
    fault = Fault(
        first.reason,
        f"{_SOME_FAILED}: {len(failed)} of {job.spec.count} failed; the first: {first.message}",
    )
    reasons = {image.fault.reason for image in failed if image.fault is not None}
    dead = job.attempts >= job.max_attempts and not reasons.isdisjoint(_TRIED_AGAIN)
    return fault, dead


async def release_for_drain(deps: Deps, held: Held) -> JobState:
    """Gives a job back untouched: no attempt burned, the place kept. LeaseLostError."""
    async with deps.db.duty() as tx:
        job = await jobs.lock(tx, held.job_id)
        _check_held(job, held)
        await _requeue_in_place(tx, deps, held.job_id, Fault("WORKER_DRAINED", "the worker left"))
    return JobState.QUEUED


async def release_for_backoff(
    deps: Deps, held: Held, outcome: Outcome, message: str, retry_after_seconds: float
) -> JobState:
    """Gives a job back to wait, or fails it when its attempts are used up. LeaseLostError."""
    fault = Fault(outcome.value, message)
    burned = POLICIES[outcome].burns_attempt
    async with deps.db.duty() as tx:
        team = await _team(tx, held.job_id)
        team_limit = await lock_team(tx, team)
        job = await jobs.lock(tx, held.job_id)
        _check_held(job, held)
        assert job is not None  # checked
        used_up = burned and job.attempts >= job.max_attempts
        rate_limited = outcome is Outcome.RATE_LIMITED
        if used_up or await _circles(tx, deps, job, rate_limited=rate_limited):
            return await _give_up(tx, deps, job, fault, team_limit)
        # What came to its end together is not to come back together.
        wait = max(
            retry_after_seconds * deps.ids.uniform(1.0, 1.25),
            _BACKOFF.wait(max(job.attempts, job.rate_waits), deps.ids),
        )
        back = await jobs.requeue(
            tx,
            job.id,
            wait_seconds=wait,
            ring_seconds=deps.limits.first_ring_seconds,
            attempts=0 if burned else -1,
            for_rate=rate_limited,
        )
        await tell(tx, deps, [about(back, EventKind.REQUEUED, fault=fault)])
        await admit_more(tx, deps, team, team_limit)
    return JobState.QUEUED


async def _give_up(tx: Tx, deps: Deps, job: Job, fault: Fault, team_limit: int | None) -> JobState:
    """Ends a job that may not be tried again: dead, unless every image is there already."""
    if job.images_done == job.spec.count:
        await end_job(tx, deps, job, JobState.SUCCEEDED, None, team_limit=team_limit)
        return JobState.SUCCEEDED
    await end_job(tx, deps, job, JobState.FAILED, fault, team_limit=team_limit, dead=True)
    return JobState.FAILED


async def _circles(tx: Tx, deps: Deps, job: Job, *, rate_limited: bool) -> bool:
    """Whether a job that burns no attempts is to end all the same: it may not circle for ever.

    Being given back for the provider's rate is no sign of a fault of the job: those claims end
    by time, the others by number.
    """
    if not rate_limited:
        # By its dispatches: each claim follows one, and a restore raises the fence beyond all.
        return job.dispatch_no - job.rate_waits >= deps.limits.max_claims
    begun = job.started_at or job.created_at
    waited = await explaining.time_now(tx) - begun
    return waited.total_seconds() > deps.limits.max_rate_wait_seconds


async def _requeue_in_place(
    tx: Tx, deps: Deps, job_id: int, fault: Fault, *, lost: int = 0
) -> None:
    """Back to the queue, place kept, doorbell rung at once."""
    back = await jobs.requeue(
        tx,
        job_id,
        wait_seconds=None,
        ring_seconds=deps.limits.first_ring_seconds,
        attempts=-1,
        lost=lost,
    )
    await tell(tx, deps, [about(back, EventKind.REQUEUED, fault=fault)])
    await send(tx, deps, [deps.announcer.doorbell(back)])


async def expire_lease(deps: Deps, lease: leases.ExpiredLease, *, blame: bool = True) -> None:
    """Takes a job from a worker that stopped renewing: back to the queue, or FAILED.

    Without blame (enqueue itself was away) no lost worker is counted.
    """
    fault = Fault(Outcome.WORKER_LOST.value, "the worker was lost while it made this job")
    async with deps.db.duty() as tx:
        team_limit = await lock_team(tx, lease.team)
        if not await leases.still_expired(tx, lease):
            return
        job = await jobs.lock(tx, lease.job_id)
        assert job is not None  # locked by still_expired
        if blame and job.lost_workers + 1 >= deps.limits.max_lost_workers:
            await jobs.count_lost_worker(tx, job.id)
            await _give_up(tx, deps, job, fault, team_limit)
        else:
            await _requeue_in_place(tx, deps, job.id, fault, lost=int(blame))
    deps.crash.here("E11")


async def get_outputs(deps: Deps, team: str, job_id: int) -> Job:
    """A job with its images, for the packager; NotFoundError for another team's."""
    async with deps.db.read(team) as tx:
        job = await jobs.find(tx, job_id, team)
    if job is None:
        raise NotFoundError("job")
    return job


async def _team(tx: Tx, job_id: int) -> str:
    team = await jobs.team_of(tx, job_id)
    if team is None:
        raise LeaseLostError("the job is gone")
    return team


async def locked(tx: Tx, held: Held) -> Job:
    """The job of a claim, without its images, its row locked; LeaseLostError."""
    job = await jobs.lock(tx, held.job_id)
    _check_held(job, held)
    assert job is not None  # checked
    return job


async def _locked(tx: Tx, held: Held, index: int) -> Job:
    job = await locked(tx, held)
    if not 1 <= index <= job.spec.count:
        raise InvalidArgumentError(
            "the job has no such image",
            violations=[FieldViolation("index", f"must be from 1 to {job.spec.count}")],
        )
    return job


def _check_held(job: Job | None, held: Held) -> None:
    if job is None or job.fence != held.fence or job.state is not JobState.RUNNING:
        raise LeaseLostError("the lease of this claim is lost")
