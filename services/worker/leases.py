"""Keeping leases alive, and dropping the jobs whose lease is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from libs.common.backoff import Backoff
from libs.common.clock import Clock
from libs.common.errors import ContentshopError
from libs.common.ids import Ids
from libs.common.lifecycle import TaskOwner
from services.worker.domain import Lease
from services.worker.gateways.enqueue import Renewal
from services.worker.inhand import JobsInHand, Stop

log = structlog.get_logger()

MIN_CALL_SECONDS = 0.05


class Leases(Protocol):
    """Who renews."""

    async def renew(
        self,
        leases: Sequence[Lease],
        lanes: Sequence[str],
        slots: int,
        *,
        fresh: bool,
        timeout_seconds: float = ...,
    ) -> Renewal:
        """Renews all leases by one call."""
        ...


class LeaseKeeper:
    """Renews all leases by one call, regularly, with no jobs too: it is the worker's presence.

    A lease that could not be renewed in time, by this machine's monotonic clock, is taken as
    lost: its job is dropped here, whatever the network says.

    Attributes:
        known: set when the first renewal was answered. Until then the worker must not claim, since
            that one gives away whatever runs under its name.

    Args:
        leases: who renews.
        hand: the jobs.
        lanes: the lanes served now; none while the worker is drained, so that nobody waits for it.
        every_seconds: between two renewals.
        clock: monotonic time.
        ids: jitter.
    """

    def __init__(
        self,
        leases: Leases,
        hand: JobsInHand,
        *,
        lanes: Callable[[], Sequence[str]],
        every_seconds: float,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._leases = leases
        self._hand = hand
        self._lanes = lanes
        self._every = every_seconds
        self._clock = clock
        self._ids = ids
        self._backoff = Backoff(first_seconds=0.2, max_seconds=min(2.0, every_seconds))
        self._failures = 0
        self.known = asyncio.Event()
        self._wake = asyncio.Event()
        self._owner = TaskOwner()

    async def start(self) -> None:
        """Renews at once, then regularly."""
        self._owner.spawn(self._run(), name="leases")

    async def stop(self) -> None:
        """Ends."""
        await self._owner.close()

    def wake(self) -> None:
        """Renew soon: something may have happened that only a renewal tells."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._round()
            wait = self._every
            if self._failures:
                wait = self._backoff.wait(self._failures, self._ids)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(wait, self._seconds_to_expiry())):
                    await self._wake.wait()
            self._wake.clear()

    async def _round(self) -> None:
        self._drop_expired()
        # What is dropped must run out, though its tasks may take a moment to end.
        held = [
            job.claim.lease
            for job in self._hand.jobs.values()
            if job.stopped in {None, Stop.LEAVING}
        ]
        asked_at = self._clock.monotonic()
        # A call that hangs must not hide that a lease runs out meanwhile.
        timeout = max(MIN_CALL_SECONDS, min(self._every, self._seconds_to_expiry()))
        try:
            renewal = await self._leases.renew(
                held,
                self._lanes(),
                self._hand.slots,
                fresh=not self.known.is_set(),
                timeout_seconds=timeout,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the leases were not renewed
            self._failures += 1
            expected = isinstance(error, ContentshopError) and self._failures > 1
            level = "debug" if expected else "warning"
            getattr(log, level)("leases.not_renewed", error=type(error).__name__)
            self._drop_expired()
            return
        self._failures = 0
        self.known.set()
        for lease in held:
            if lease.job_id in renewal.lost_job_ids:
                if self._hand.stop(lease.job_id, lease.fence, Stop.COMMAND):
                    log.info("lease.lost", job_id=lease.job_id, fence=lease.fence)
            else:
                lease.until = asked_at + renewal.lease_seconds

    def _seconds_to_expiry(self) -> float:
        now = self._clock.monotonic()
        live = [job for job in self._hand.jobs.values() if job.stopped is None]
        return max(0.0, min((job.claim.lease.until - now for job in live), default=float("inf")))

    def _drop_expired(self) -> None:
        now = self._clock.monotonic()
        for job in list(self._hand.jobs.values()):
            lease = job.claim.lease
            if job.stopped is None and now >= lease.until:
                log.warning("lease.over", job_id=lease.job_id, fence=lease.fence)
                job.stop(Stop.LEASE_OVER)
