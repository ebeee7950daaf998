"""What the use cases share: their limits, and what must happen with every change of a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from libs.common import outbox
from libs.common.broker import Message
from libs.common.crash import CrashPoints
from libs.common.db import Database, Tx
from libs.common.ids import Ids
from services.enqueue import tables
from services.enqueue.domain import EventKind, Fault, Job, JobState, wants_archive
from services.enqueue.prompt import PromptStrategy
from services.enqueue.store import admission, batches, events, images, jobs, ledger
from services.enqueue.store.events import NewEvent, about
from services.enqueue.wakeups import Changed, Stop, WakeUp, Wakeups


@dataclass(frozen=True, slots=True)
class Limits:
    """The figures and rules of a job's life, in seconds and counts; from settings."""

    lease_seconds: float = 15.0
    live_jobs_per_team: int = 3
    queued_jobs_per_team: int = 10_000
    max_attempts: int = 3
    max_lost_workers: int = 3
    # Hand-backs that burn no attempt end here: a job may not circle for ever.
    max_claims: int = 100
    # Those for the provider's rate are no fault of the job: they end so long after its first claim.
    max_rate_wait_seconds: float = 24 * 3600.0
    first_ring_seconds: float = 5.0
    max_ring_seconds: float = 60.0
    archive_ring_seconds: float = 30.0
    archive_rings: int = 8
    # After a job has ended, assets is asked whether it has heard of it.
    confirm_seconds: float = 60.0
    # A team without an account needs no credits; else it has none.
    unlimited_without_account: bool = True
    # A job's images are hidden, and its zip is not built, until somebody approved them.
    review_required: bool = False
    # Input images of a job at most: what its model takes.
    max_references_fast: int = 14
    max_references_high: int = 14
    # For requests that ask for none.
    prompt_strategy: PromptStrategy = PromptStrategy.NONE

    @property
    def unhurried_confirm_seconds(self) -> float:
        """As confirm_seconds, for a job that goes on, and for news that is on its way again."""
        return 5 * self.confirm_seconds

    def max_references(self, quality: str) -> int:
        """Input images of a job of this quality at most."""
        return self.max_references_high if quality == "high" else self.max_references_fast


class Announcer(Protocol):
    """Makes the messages that tell others of jobs."""

    def doorbell(self, job: Job) -> Message:
        """Rings for an admitted job."""
        ...

    def enqueued(self, job_id: int, team: str, pin_token: str) -> Message:
        """The pins of the job's inputs are to last."""
        ...

    def lives_again(self, job: Job) -> Message:
        """After a restore: the job has not ended, whatever was said of it."""
        ...

    def ended(self, job: Job, batch_name: str) -> Message:
        """The job is over; `job` has its images, and its batch this name."""
        ...


@dataclass(frozen=True, slots=True)
class Deps:
    """What every use case that changes a job is given."""

    db: Database
    announcer: Announcer
    wakeups: Wakeups
    wake_relay: Callable[[], None]
    limits: Limits
    crash: CrashPoints
    ids: Ids


async def send(tx: Tx, deps: Deps, messages: Sequence[Message]) -> None:
    """Puts messages in the outbox, and wakes the relay once they are committed."""
    await outbox.add(tx, tables.outbox, messages)
    if messages:
        tx.on_commit(deps.wake_relay)


async def tell(tx: Tx, deps: Deps, news: Sequence[NewEvent]) -> None:
    """Writes events, and wakes the watchers of their jobs, batches and teams at the commit."""
    await events.add(tx, news)
    changed = tuple({Changed(event.job_id, event.team, event.batch_id) for event in news})
    if changed:
        tx.on_commit(lambda: deps.wakeups.notify(WakeUp(changed)))


async def admit_more(tx: Tx, deps: Deps, team: str, limit: int | None) -> None:
    """Gives the team's free places to its next jobs; the caller holds the team's lock."""
    found = (await admission.places(tx, {team: limit}, deps.limits.live_jobs_per_team)).get(team)
    if found is None or not found.waiting:
        return
    admitted = await admission.admit_waiting(tx, team, found.free, deps.limits.first_ring_seconds)
    await tell(tx, deps, [about(job, EventKind.ADMITTED) for job in admitted])
    await send(tx, deps, [deps.announcer.doorbell(job) for job in admitted])


async def lock_team(tx: Tx, team: str) -> int | None:
    """Takes one team's lock; its own limit, or None for the default."""
    return (await admission.lock_teams(tx, [team])).get(team)


async def end_job(
    tx: Tx,
    deps: Deps,
    job: Job,
    state: JobState,
    fault: Fault | None,
    *,
    team_limit: int | None,
    dead: bool = False,
) -> Job | None:
    """Ends a job, SUCCEEDED or FAILED; what else belongs to an ending: `_after_end`.

    The caller holds the team's lock and the job's. `dead`: its attempts or workers are used up.
    None when the job may not move there.
    """
    # Where a review is wanted, it makes the zip due.
    zip_due = wants_archive(state, job.spec.count) and not deps.limits.review_required
    ring = deps.limits.archive_ring_seconds if zip_due else None
    if fault is not None:
        await images.fail_pending(tx, job.id, fault)
    confirm = deps.limits.confirm_seconds
    ended = await jobs.end(tx, job.id, state, fault, archive_ring=ring, confirm=confirm, dead=dead)
    if ended is None:
        return None
    whole = await images.of_job(tx, ended)
    await _after_end(tx, deps, [whole], team_limit=team_limit)
    return whole


async def cancel_jobs(
    tx: Tx, deps: Deps, locked: Sequence[Job], *, team_limit: int | None
) -> list[Job]:
    """Cancels those of a team's jobs that have not ended, and stops their workers; by id.

    The caller holds the team's lock and the jobs'.
    """
    job_ids = [job.id for job in locked if not job.terminal]
    if not job_ids:
        return []
    await images.cancel_pending(tx, job_ids)
    canceled = await jobs.cancel(tx, job_ids, confirm=deps.limits.confirm_seconds)
    slots = await images.of_jobs(tx, job_ids)
    whole = [job.with_images(slots[job.id]) for job in canceled]
    await _after_end(tx, deps, whole, team_limit=team_limit)
    running = [job for job in locked if job.state is JobState.RUNNING]
    if running:
        stops = WakeUp(stops=tuple(Stop(job.worker, job.id, job.fence) for job in running))
        tx.on_commit(lambda: deps.wakeups.notify(stops))
    return whole


async def _after_end(tx: Tx, deps: Deps, ended: Sequence[Job], *, team_limit: int | None) -> None:
    """What every ending of a team's jobs takes.

    Their events and job.ended, their credits settled, their places given on.
    """
    await tell(tx, deps, [about(job, EventKind(job.state.value), fault=job.fault) for job in ended])
    await announce_ended(tx, deps, ended)
    await ledger.settle(tx, ended)
    await admit_more(tx, deps, ended[0].spec.team, team_limit)


async def announce_ended(tx: Tx, deps: Deps, ended: Sequence[Job]) -> None:
    """Says job.ended of jobs that have their images; may be said again."""
    names = await batches.names(tx, {job.spec.batch_id for job in ended if job.spec.batch_id})
    messages = [deps.announcer.ended(job, names.get(job.spec.batch_id, "")) for job in ended]
    await send(tx, deps, messages)
