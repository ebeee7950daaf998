"""Carries claimed jobs as tasks of its own; none disturbs another, none is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from libs.common.clock import Clock
from libs.common.errors import TRANSIENT, ContentshopError, LeaseLostError
from libs.common.lifecycle import TaskOwner
from libs.common.outcomes import Outcome
from services.worker.domain import Claim, HandBack
from services.worker.inhand import JobInHand, JobsInHand, Stop
from services.worker.usecases.run_job import Ending, JobRecords

log = structlog.get_logger()

RELEASE_SECONDS = 3.0  # past it the lease runs out by itself


class Carrier:
    """Runs each claimed job to its end, gives its slot back, and releases what is left at stop.

    Args:
        run: carries one job.
        releases: takes jobs back.
        hand: where jobs and slots are kept.
        clock: for start times.
        drain_seconds: how long images in flight may take at stop.
    """

    def __init__(
        self,
        run: Callable[[JobInHand], Awaitable[Ending]],
        *,
        releases: JobRecords,
        hand: JobsInHand,
        clock: Clock,
        drain_seconds: float,
    ) -> None:
        self._run = run
        self._releases = releases
        self._hand = hand
        self._clock = clock
        self._drain_seconds = drain_seconds
        self._owner = TaskOwner()
        self._jobs: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing to do before the first job."""

    def carry(self, claim: Claim) -> None:
        """Starts on a job, whose slot is taken already."""
        job = JobInHand(claim, self._clock.monotonic())
        self._hand.add(job)
        name = f"job.{claim.lease.job_id}"
        task = self._owner.spawn(self._carry(job), name=name)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def stop(self) -> None:
        """Lets images in flight end, within drain_seconds; then releases every job left."""
        for job in list(self._hand.jobs.values()):
            job.leave()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=self._drain_seconds)
        for job in list(self._hand.jobs.values()):
            job.stop(Stop.LEAVING)
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=RELEASE_SECONDS + 1.0)
        await self._owner.close()

    async def _carry(self, job: JobInHand) -> None:
        lease = job.claim.lease
        structlog.contextvars.bind_contextvars(
            job_id=lease.job_id, attempt=job.claim.attempt, fence=lease.fence
        )
        log.info("job.claimed", lane=job.claim.lane, images=len(job.claim.images))
        try:
            ending = await self._work(job)
            if ending is Ending.LEFT:
                await self._release(job, None)
            log.info("job.carried", ending=ending.value)
        finally:
            self._hand.remove(job)
            self._hand.free_slot()

    async def _work(self, job: JobInHand) -> Ending:
        """Does the work in a task of its own, which may be stopped without stopping this one."""
        work: asyncio.Task[Ending] = self._owner.spawn(
            self._guarded(job), name=f"work.{job.claim.lease.job_id}"
        )
        job.worked_by(work)
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait([work])
            raise
        if not work.cancelled():
            return work.result()
        log.info("job.stopped", why=job.stopped.value if job.stopped else "cancelled")
        return Ending.LEFT if job.stopped is Stop.LEAVING else Ending.LOST

    async def _guarded(self, job: JobInHand) -> Ending:
        """The work; what goes wrong with it beyond its outcomes costs this attempt alone."""
        try:
            return await self._run(job)
        except TRANSIENT as error:
            # enqueue stayed away for as long as the lease held: no fault of the job.
            log.warning("job.given_up", error=type(error).__name__)
            return Ending.LEFT
        except Exception:  # noqa: BLE001 - whatever it is, the worker and its other jobs live on
            log.exception("job.fault")
        await self._release(job, HandBack(Outcome.INTERNAL, "the worker failed on this job"))
        return Ending.RELEASED

    async def _release(self, job: JobInHand, why: HandBack | None) -> None:
        try:
            await self._releases.release(job.claim.lease, why, limit_seconds=RELEASE_SECONDS)
        except LeaseLostError:
            return  # it is another's, or an earlier try has landed
        except ContentshopError as error:
            log.warning("job.not_released", error=type(error).__name__)
