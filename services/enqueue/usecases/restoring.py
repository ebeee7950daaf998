"""After a restore: jobs are taken from workers, and what others may not know is told again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from libs.common.db import Tx
from services.enqueue.domain import Job
from services.enqueue.store import leases, restoring
from services.enqueue.usecases.deps import Deps, announce_ended, send

PAGE = 100

Page = Callable[[Tx, int], Awaitable[list[Job]]]


@dataclass(frozen=True, slots=True)
class Told:
    """How many jobs others were told of."""

    live: int
    ended: int


async def tell_again(deps: Deps, *, fence: int, ended_seconds: float) -> Told:
    """Makes the jobs of a restored database, or beside one, what all services know. Repeatable.

    Jobs that have not ended begin anew, with their images so far: assets hears that they live, and
    pins their inputs. Of those that ended within so many seconds it is said again how, for who was
    restored may have forgotten it.

    Args:
        deps: shared means.
        fence: beyond all that were ever given out.
        ended_seconds: how far back.
    """
    async with deps.db.duty() as tx:
        await restoring.take_from_workers(tx, fence)
        await leases.revoke_all(tx)
        await leases.ring_all(tx)
        await restoring.forget_order(tx)

    async def say_live(tx: Tx, jobs: list[Job]) -> None:
        await send(tx, deps, [deps.announcer.lives_again(job) for job in jobs])

    async def say_ended(tx: Tx, jobs: list[Job]) -> None:
        await announce_ended(tx, deps, jobs)

    return Told(
        await _each(deps, lambda tx, after: restoring.live(tx, after, PAGE), say_live),
        await _each(
            deps, lambda tx, after: restoring.ended(tx, ended_seconds, after, PAGE), say_ended
        ),
    )


async def _each(deps: Deps, page: Page, say: Callable[[Tx, list[Job]], Awaitable[None]]) -> int:
    """Says something of every job, a page in each transaction; of how many."""
    told, after_id = 0, 0
    while True:
        async with deps.db.duty() as tx:
            jobs = await page(tx, after_id)
            if not jobs:
                return told
            await say(tx, jobs)
        told, after_id = told + len(jobs), jobs[-1].id
