"""The periodic duties of enqueue: relay, reaper, sweep, timers. Each round is short and bounded."""

from __future__ import annotations

from libs.common.clock import Clock
from services.enqueue.store import admission, leases
from services.enqueue.usecases.archiving import ring_for_archives
from services.enqueue.usecases.deps import Deps, admit_more, lock_team, send
from services.enqueue.usecases.executing import expire_lease

BATCH = 100
WORKER_MEMORY_SECONDS = 24 * 3600.0


class Reaper:
    """Takes jobs from workers that stopped renewing.

    After this process was away itself (its database was, or it was stopped), it waits one lease
    length before it takes anything: workers could not renew in that time.
    """

    def __init__(self, deps: Deps, clock: Clock, every_seconds: float) -> None:
        self._deps = deps
        self._clock = clock
        self._every = every_seconds
        self._last_round = float("-inf")
        self._hold_until = float("-inf")

    async def round(self) -> bool:
        """One look; True when there may be more."""
        now = self._clock.monotonic()
        was_away = now - self._last_round > 3 * self._every + 2.0
        if was_away and self._last_round > float("-inf"):
            self._hold_until = now + self._deps.limits.lease_seconds
        async with self._deps.db.read_all() as tx:
            found = await leases.expired(tx, BATCH)
        if now >= self._hold_until:
            for lease in found:
                await expire_lease(self._deps, lease)
        self._last_round = self._clock.monotonic()
        return len(found) == BATCH and now >= self._hold_until


async def sweep(deps: Deps) -> bool:
    """Rings again for admitted jobs that nobody claimed, each with its own growing pause."""
    limits = deps.limits
    async with deps.db.duty() as tx:
        late = await admission.to_ring(tx, BATCH)
        rings = await admission.rings_of(tx, [job.id for job in late])
        pauses: dict[float, list[int]] = {}
        for job in late:
            pause = limits.first_ring_seconds * 2.0 ** min(rings[job.id] + 1, 10)
            pauses.setdefault(min(limits.max_ring_seconds, pause), []).append(job.id)
        await admission.rung(tx, pauses)
        await send(tx, deps, [deps.announcer.doorbell(job) for job in late])
    return len(late) == BATCH


async def readmit(deps: Deps) -> bool:
    """Admits jobs whose back-off is over, where their team has a place."""
    async with deps.db.read_all() as tx:
        teams = await admission.teams_with_due_jobs(tx, BATCH)
    for team in teams:
        async with deps.db.duty() as tx:
            await admit_more(tx, deps, team, await lock_team(tx, team))
    return False


async def archives(deps: Deps) -> bool:
    """Asks again for late zips."""
    return await ring_for_archives(deps, BATCH)


async def forget_workers(deps: Deps) -> bool:
    """Removes workers not seen for a day."""
    async with deps.db.duty() as tx:
        await leases.forget_workers(tx, WORKER_MEMORY_SECONDS)
    return False


async def recover_embedded(deps: Deps) -> None:
    """At the start of an embedded house: no worker and no message survived; rows did."""
    async with deps.db.duty() as tx:
        await leases.revoke_all(tx)
        await leases.ring_all(tx)
