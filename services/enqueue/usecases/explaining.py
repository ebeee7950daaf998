"""ExplainJob: why a job waits, in words an operator can read out loud."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from libs.common.errors import NotFoundError
from services.enqueue.domain import Job, JobState
from services.enqueue.store import admission, explaining, jobs, lanes
from services.enqueue.store.explaining import LaneWorkers
from services.enqueue.store.lanes import Pause
from services.enqueue.usecases.deps import Deps

# A worker renews every five seconds; one that was silent for this long may be gone.
HEARD_WITHIN_LEASES = 2.0


class WaitReason(StrEnum):
    """Why a job is where it is."""

    ENDED = "ENDED"
    RUNNING = "RUNNING"
    TEAM_LIMIT = "TEAM_LIMIT"
    BACKOFF = "BACKOFF"
    NO_WORKER = "NO_WORKER"
    WORKERS_BUSY = "WORKERS_BUSY"
    STARTING = "STARTING"
    PROVIDER_RATE = "PROVIDER_RATE"
    LANE_PAUSED = "LANE_PAUSED"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why, in one word, in one sentence, and as facts."""

    job: Job
    reason: WaitReason
    sentence: str
    position: int
    live: int
    limit: int
    workers: LaneWorkers
    not_before: datetime | None
    eta: datetime | None


@dataclass(frozen=True, slots=True)
class _Facts:
    job: Job
    now: datetime
    ahead: int
    live: int
    limit: int
    workers: LaneWorkers
    seconds: float | None
    pause: Pause | None


async def explain_job(deps: Deps, team: str | None, job_id: int) -> Explanation:
    """Why a job waits; of that team only when one is given. NotFoundError."""
    # The workers' table is not of any team: only the duty role reads it.
    async with deps.db.read_all() as tx:
        job = await jobs.find(tx, job_id, team)
        if job is None:
            raise NotFoundError("job")
        of_team = job.spec.team
        limit = await admission.limit_of(tx, of_team)
        facts = _Facts(
            job=job,
            now=await explaining.time_now(tx),
            ahead=await explaining.ahead_of(tx, job),
            live=await admission.live_count(tx, of_team),
            limit=deps.limits.live_jobs_per_team if limit is None else limit,
            workers=(
                await explaining.workers_by_lane(
                    tx, deps.limits.lease_seconds * HEARD_WITHIN_LEASES
                )
            ).get(job.spec.lane, LaneWorkers()),
            seconds=await explaining.recent_seconds(tx, job.spec.lane),
            pause=(await lanes.paused(tx)).get(job.spec.lane),
        )
    reason = _reason(facts)
    waits_for_team = job.state is JobState.QUEUED and job.admitted_at is None
    return Explanation(
        job=job,
        reason=reason,
        sentence=_sentence(facts, reason),
        position=facts.ahead + 1 if waits_for_team else 0,
        live=facts.live,
        limit=facts.limit,
        workers=facts.workers,
        not_before=_not_before(job, reason),
        eta=_eta(facts, reason),
    )


def _reason(facts: _Facts) -> WaitReason:
    job = facts.job
    if job.terminal:
        return WaitReason.ENDED
    if job.state is JobState.RUNNING:
        return WaitReason.PROVIDER_RATE if _waits_for_rate(facts) else WaitReason.RUNNING
    if facts.pause is not None:
        return WaitReason.LANE_PAUSED
    return _reason_of_waiting(facts) if job.admitted_at is None else _reason_of_admitted(facts)


def _reason_of_waiting(facts: _Facts) -> WaitReason:
    if _waits_for_rate(facts):
        return WaitReason.PROVIDER_RATE
    not_before = facts.job.not_before
    backing_off = not_before is not None and not_before > facts.now
    return WaitReason.BACKOFF if backing_off else WaitReason.TEAM_LIMIT


def _reason_of_admitted(facts: _Facts) -> WaitReason:
    if not facts.workers.count:
        return WaitReason.NO_WORKER
    full = facts.workers.taken >= facts.workers.slots
    return WaitReason.WORKERS_BUSY if full else WaitReason.STARTING


def _waits_for_rate(facts: _Facts) -> bool:
    until = facts.job.rate_wait_until
    return until is not None and until > facts.now


def _not_before(job: Job, reason: WaitReason) -> datetime | None:
    """When it may go on, where that is known."""
    if reason is WaitReason.BACKOFF:
        return job.not_before
    return job.rate_wait_until if reason is WaitReason.PROVIDER_RATE else None


def _sentence(facts: _Facts, reason: WaitReason) -> str:  # noqa: PLR0911 - one sentence per reason
    job, workers = facts.job, facts.workers
    match reason:
        case WaitReason.ENDED:
            # Messages of providers and of ours end with a full stop, or do not.
            why = f": {job.fault.reason}, {job.fault.message.rstrip('.')}" if job.fault else ""
            return f"Job {job.id} has ended: {job.state.lower()}{why}."
        case WaitReason.RUNNING:
            return (
                f"Job {job.id} is running on worker {job.worker}: {job.images_done} of "
                f"{job.spec.count} images done."
            )
        case WaitReason.BACKOFF:
            assert job.not_before is not None  # what makes it back off
            when = _when(facts, job.not_before)
            return f"Job {job.id} waits after a failed attempt; it goes on {when}."
        case WaitReason.PROVIDER_RATE:
            return _rate_sentence(facts)
        case WaitReason.LANE_PAUSED:
            assert facts.pause is not None  # what makes it wait
            why = f": {facts.pause.reason}" if facts.pause.reason else ""
            return (
                f"Job {job.id} waits because an operator has paused lane {job.spec.lane}"
                f"{why.rstrip('.')}. It goes on when the lane is resumed."
            )
        case WaitReason.TEAM_LIMIT:
            return (
                f"Job {job.id} waits for its team: {facts.live} of {facts.limit} jobs of team "
                f"{job.spec.team} are live, and {facts.ahead} wait before it."
            )
        case WaitReason.NO_WORKER:
            return f"Job {job.id} has its place, but no worker serves lane {job.spec.lane}."
        case WaitReason.WORKERS_BUSY:
            return (
                f"Job {job.id} has its place, but the {workers.count} workers of lane "
                f"{job.spec.lane} are full: {workers.taken} of {workers.slots} slots are taken."
            )
        case WaitReason.STARTING:
            return f"Job {job.id} has its place; a worker should take it any moment."


def _rate_sentence(facts: _Facts) -> str:
    job = facts.job
    assert job.rate_wait_until is not None  # what makes it wait
    when = _when(facts, job.rate_wait_until)
    if job.state is JobState.RUNNING:
        return (
            f"Job {job.id} is on worker {job.worker} and waits for its model, which takes no more "
            f"calls just now: it may call again {when}. {job.images_done} of {job.spec.count} "
            "images are done."
        )
    return (
        f"Job {job.id} was put back because its model takes no more calls just now; it goes on "
        f"{when}. No attempt is lost by that."
    )


def _when(facts: _Facts, time: datetime) -> str:
    seconds = max(1, round((time - facts.now).total_seconds()))
    return f"in {seconds} s, at {time:%H:%M:%S} UTC"


def _eta(facts: _Facts, reason: WaitReason) -> datetime | None:
    """From how long recent jobs ran; the jobs before it end `limit` at a time."""
    unknown = (WaitReason.ENDED, WaitReason.NO_WORKER, WaitReason.LANE_PAUSED)
    if facts.seconds is None or reason in unknown:
        return None
    job = facts.job
    if job.state is JobState.RUNNING:
        started = job.started_at or facts.now
        earliest = max(facts.now, job.rate_wait_until or facts.now)
        return max(earliest, started + timedelta(seconds=facts.seconds))
    rounds = 1 if job.admitted_at else 2 + facts.ahead // max(1, facts.limit)
    begin = max(facts.now, job.not_before or facts.now, job.rate_wait_until or facts.now)
    return begin + timedelta(seconds=facts.seconds * rounds)
