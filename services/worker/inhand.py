"""The jobs a worker holds, its slots, and what it has counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from services.worker.domain import Claim


class Stop(Enum):
    """Why the work on a job is stopped from outside."""

    COMMAND = "command"  # enqueue said so: canceled, or another's
    LEASE_OVER = "lease_over"  # could not be renewed
    LEAVING = "leaving"  # the worker goes home


@dataclass(slots=True)
class Counters:
    """What this process has done since its start.

    Attributes:
        calls: generator calls.
        failures: of those, how many made no usable image.
        wasted: images made and then not needed.
        extra: further images in answers to calls that ask for one; ignored.
    """

    calls: int = 0
    failures: int = 0
    wasted: int = 0
    extra: int = 0


class JobInHand:
    """One claimed job while this worker carries it.

    Attributes:
        claim: what is to be made.
        started_at: the worker's monotonic time of the claim.
        calls: generator calls under way.
        leaving: start no further image; the worker goes home.
        stopped: why the work was stopped, or None.
    """

    def __init__(self, claim: Claim, started_at: float) -> None:
        self.claim = claim
        self.started_at = started_at
        self.calls = 0
        self.leaving = False
        self.stopped: Stop | None = None
        self._work: asyncio.Task[object] | None = None
        self._images: set[asyncio.Task[object]] = set()
        self._busy: set[asyncio.Task[object]] = set()

    def worked_by(self, work: asyncio.Task[object]) -> None:
        """The task that does the whole job; ended at once when the job was stopped before."""
        self._work = work
        if self.stopped is not None:
            work.cancel()

    def image_worked_by(self, task: asyncio.Task[object]) -> None:
        """The task of one image."""
        self._images.add(task)
        task.add_done_callback(self._images.discard)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The current task does what should not be broken off for a worker that leaves."""
        task = asyncio.current_task()
        assert task is not None  # only ever within one
        self._busy.add(task)
        try:
            yield
        finally:
            self._busy.discard(task)

    def stop(self, why: Stop) -> None:
        """Ends the work now, generator calls included; the first reason stands."""
        if self.stopped is None:
            self.stopped = why
            if self._work is not None:
                self._work.cancel()

    def leave(self) -> None:
        """Lets images that are being made be finished, and starts no others."""
        self.leaving = True
        if not self._busy:
            self.stop(Stop.LEAVING)
            return
        for task in self._images - self._busy:
            task.cancel()


class JobsInHand:
    """The slots and the jobs in them; tells when either changes.

    A slot is taken before a claim is tried, so that a claimed job always has one.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.taken = 0
        self.jobs: dict[int, JobInHand] = {}
        self.on_change: Callable[[], None] = lambda: None

    def take_slot(self) -> None:
        """Takes a free slot."""
        if self.taken >= self.slots:
            raise RuntimeError("no slot is free")
        self.taken += 1
        self.on_change()

    def free_slot(self) -> None:
        """Gives a slot back."""
        self.taken -= 1
        self.on_change()

    def add(self, job: JobInHand) -> None:
        """The job is carried; a job claimed anew stops what is left of its old claim."""
        old = self.jobs.get(job.claim.lease.job_id)
        if old is not None:
            old.stop(Stop.COMMAND)
        self.jobs[job.claim.lease.job_id] = job

    def remove(self, job: JobInHand) -> None:
        """The job is not carried any more."""
        if self.jobs.get(job.claim.lease.job_id) is job:
            del self.jobs[job.claim.lease.job_id]

    def stop(self, job_id: int, fence: int | None, why: Stop) -> bool:
        """Stops a job, if it is held (under that fence, where one is given); says whether."""
        job = self.jobs.get(job_id)
        if job is None or fence not in {None, job.claim.lease.fence}:
            return False
        job.stop(why)
        return True
