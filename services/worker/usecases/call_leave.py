"""Leave for generator calls: enqueue's governor keeps all workers together to a model's rate."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from libs.common.clock import Clock
from libs.common.errors import ContentshopError
from libs.common.ids import Ids
from libs.common.lifecycle import TaskOwner
from services.worker.domain import MAX_WAIT_SECONDS, Lease
from services.worker.generation import CallGrant, CallTally, GenerationError, NoLeaveError, tally_of

log = structlog.get_logger()

MAX_CALLS_PER_ASK = 10
# Leave that nobody used soon is not used late: its calls would come on top of a later rate.
KEPT_SECONDS = 5.0
# Many wait for the same moment: each comes a little after it.
JITTER_SECONDS = 0.05
REPORT_SECONDS = 0.5
LAST_REPORT_SECONDS = 1.0


class CallGovernor(Protocol):
    """Who gives leave, and is told how calls went."""

    async def acquire_calls(self, lease: Lease, model: str, calls: int) -> CallGrant:
        """Leave for up to so many calls; raises LeaseLostError, and what does not pass in time."""
        ...

    async def report_calls(self, model: str, tally: CallTally) -> None:
        """How calls went, by one try; raises ContentshopError."""
        ...


@dataclass(slots=True)
class _Gate:
    """One model, as this worker sees it.

    Attributes:
        lock: one asks at a time; the others use its answer.
        refused_until: monotonic time before which asking is of no use.
        waiting: images that wait, by job.
        kept: leave that was given and not used yet, by job: calls, and until when.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    refused_until: float = float("-inf")
    waiting: Counter[int] = field(default_factory=Counter)
    kept: dict[int, tuple[int, float]] = field(default_factory=dict)


class CallLeave:
    """Takes a place for a call once there is leave for it; learns from how calls went.

    A wait for leave holds no place, and is no part of the call's own timeout. As a component it
    sends the reports: a bad one at once, good ones together; what cannot be sent is dropped.

    Args:
        governor: gives leave.
        places: calls at once, of all jobs and models.
        clock: for waits.
        ids: for jitter.
    """

    def __init__(self, governor: CallGovernor, *, places: int, clock: Clock, ids: Ids) -> None:
        self._governor = governor
        self._places = asyncio.Semaphore(places)
        self._clock = clock
        self._ids = ids
        self._gates: dict[str, _Gate] = {}  # as many as the generator has models
        self._tallies: dict[str, CallTally] = {}
        self._news = asyncio.Event()
        self._bad_news = asyncio.Event()
        self._owner = TaskOwner()

    async def start(self) -> None:
        """Begins to report."""
        self._owner.spawn(self._report_on(), name="calls.report")

    async def stop(self) -> None:
        """Sends what is left, if that is quick, and ends."""
        await self._owner.close()
        try:
            async with asyncio.timeout(LAST_REPORT_SECONDS):
                await self._send()
        except TimeoutError:
            log.debug("calls.not_reported")

    @asynccontextmanager
    async def place(self, lease: Lease, model: str) -> AsyncIterator[None]:
        """A place for one call of the model, with leave for it; no model: no leave is needed.

        Raises:
            NoLeaveError: the wait is too long for a worker: give the job back.
            LeaseLostError: the job is not this worker's any more.
        """
        await self._enter(lease, model)
        try:
            yield
        finally:
            self._places.release()

    def answered(self, model: str, fault: GenerationError | None) -> None:
        """Notes how a call went; None for an image."""
        if not model:
            return
        tally = tally_of(fault)
        self._tallies[model] = self._tallies.get(model, CallTally()) + tally
        if tally.bad:
            self._bad_news.set()
        self._news.set()

    # --- leave

    async def _enter(self, lease: Lease, model: str) -> None:
        gate = self._gates.setdefault(model, _Gate())
        gate.waiting[lease.job_id] += 1
        try:
            await asyncio.sleep(0)  # the job's other images come in this very turn: ask for all
            waited = 0.0
            while True:
                await self._places.acquire()
                wait = await self._ask_in_place(gate, lease, model)
                if not wait:
                    return
                if waited + wait > MAX_WAIT_SECONDS:
                    raise NoLeaveError(wait)
                await self._clock.sleep(wait + self._ids.uniform(0.0, JITTER_SECONDS))
                waited += wait
        finally:
            gate.waiting[lease.job_id] -= 1
            if not gate.waiting[lease.job_id]:
                del gate.waiting[lease.job_id]
                gate.kept.pop(lease.job_id, None)

    async def _ask_in_place(self, gate: _Gate, lease: Lease, model: str) -> float:
        """Seconds to wait, the place given up; 0 keeps the place."""
        wait = float("inf")
        try:
            wait = await self._ask(gate, lease, model) if model else 0.0
        finally:
            if wait:
                self._places.release()
        return wait

    async def _ask(self, gate: _Gate, lease: Lease, model: str) -> float:
        async with gate.lock:
            if self._use_kept(gate, lease.job_id):
                return 0.0
            wait = gate.refused_until - self._clock.monotonic()
            if wait > 0:
                return wait
            # For the job's other images as well: one call of enqueue instead of many.
            calls = min(MAX_CALLS_PER_ASK, gate.waiting[lease.job_id])
            grant = await self._governor.acquire_calls(lease, model, calls)
            now = self._clock.monotonic()
            if grant.calls > 1:
                gate.kept[lease.job_id] = (grant.calls - 1, now + KEPT_SECONDS)
            if grant.calls < calls:
                gate.refused_until = now + grant.wait_seconds
            return 0.0 if grant.calls else max(grant.wait_seconds, JITTER_SECONDS)

    def _use_kept(self, gate: _Gate, job_id: int) -> bool:
        calls, until = gate.kept.pop(job_id, (0, 0.0))
        if not calls or self._clock.monotonic() > until:
            return False
        if calls > 1:
            gate.kept[job_id] = (calls - 1, until)
        return True

    # --- reports

    async def _report_on(self) -> None:
        while True:
            await self._news.wait()
            if not self._bad_news.is_set():
                try:
                    async with asyncio.timeout(REPORT_SECONDS):
                        await self._bad_news.wait()
                except TimeoutError:
                    pass
            self._news.clear()
            self._bad_news.clear()
            await self._send()

    async def _send(self) -> None:
        tallies, self._tallies = self._tallies, {}
        for model, tally in tallies.items():
            try:
                await self._governor.report_calls(model, tally)
            except ContentshopError as error:
                log.debug("calls.not_reported", model=model, error=type(error).__name__)
