"""The periodic duties of enqueue: relay, reaper, sweep, timers. Each round is short and bounded."""

from __future__ import annotations

from libs.common.clock import Clock
from services.enqueue.store import admission, leases
from services.enqueue.usecases.archiving import ring_for_archives
from services.enqueue.usecases.confirming import Listener, confirm_jobs
from services.enqueue.usecases.deps import Deps, admit_more, lock_team, send
from services.enqueue.usecases.executing import expire_lease

BATCH = 100
WORKER_MEMORY_SECONDS = 24 * 3600.0


class Reaper:
    """Takes jobs from workers that stopped renewing.

    Nobody could renew while this process was away: just started, its database gone, itself
    stopped. What ran out then is taken at once all the same, for its worker goes by its own clock
    and has dropped it (decision 0021). But no lost worker is counted until a lease length later,
    in which the living renew: the outage was ours.

    Args:
        deps: shared means.
        clock: monotonic time.
        every_seconds: the duty's floor; much longer between two rounds means: was away.
    """

    def __init__(self, deps: Deps, clock: Clock, every_seconds: float) -> None:
        self._deps = deps
        self._clock = clock
        self._away_seconds = 3 * every_seconds + 2.0
        self._last_round = float("-inf")
        self._blames_from = float("-inf")

    async def round(self) -> bool:
        """One look; True when there may be more."""
        now = self._clock.monotonic()
        async with self._deps.db.read_all() as tx:
            found = await leases.expired(tx, BATCH)
        if now - self._last_round > self._away_seconds:
            self._blames_from = now + self._deps.limits.lease_seconds
        self._last_round = self._clock.monotonic()
        for lease in found:
            await expire_lease(self._deps, lease, blame=now >= self._blames_from)
        return len(found) == BATCH


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
        teams = await admission.teams_with_due_jobs(tx, deps.limits.live_jobs_per_team, BATCH)
    for team in teams:
        async with deps.db.duty() as tx:
            await admit_more(tx, deps, team, await lock_team(tx, team))
    return len(teams) == BATCH


async def archives(deps: Deps) -> bool:
    """Asks again for late zips."""
    return await ring_for_archives(deps, BATCH)


async def confirm(deps: Deps, assets: Listener) -> bool:
    """Says again what assets has not heard."""
    return await confirm_jobs(deps, assets, BATCH)


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
