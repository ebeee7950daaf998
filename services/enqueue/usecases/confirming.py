"""Says again what assets has not heard: a message is only a hint, and may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from services.enqueue.store import confirming, jobs
from services.enqueue.store.confirming import Due
from services.enqueue.usecases.deps import Deps, announce_ended, send

log = structlog.get_logger()


class Listener(Protocol):
    """assets, as far as it can say what it has heard."""

    async def unheard(self, team: str, ended: Sequence[Due]) -> list[int]:
        """Those of a team's ended jobs whose end, or whose review, it has not heard."""
        ...


async def confirm_jobs(deps: Deps, assets: Listener, limit: int) -> bool:
    """Asks assets of ended jobs that are due, and announces again what it has missed.

    Of a job that goes on it is said once more that it was enqueued, for the pins of its inputs:
    those of an end that was heard are gone with it.

    Args:
        deps: shared means.
        assets: who is asked, once per team.
        limit: jobs of one round.

    Returns:
        Whether there may be more.
    """
    async with deps.db.read_all() as tx:
        found = await confirming.due(tx, limit, reviews=deps.limits.review_required)
    if not found:
        return False
    ended: dict[str, list[Due]] = {}
    for one in found:
        if one.ended:
            ended.setdefault(one.team, []).append(one)
    unheard: set[int] = set()
    for team, of_team in ended.items():
        unheard.update(await assets.unheard(team, of_team))
    living = {one.job_id for one in found if not one.ended}
    heard = {one.job_id for one in found} - unheard - living
    later = deps.limits.unhurried_confirm_seconds
    async with deps.db.duty() as tx:
        await confirming.settle(tx, heard, again_seconds=None)
        going = await confirming.settle(tx, living, again_seconds=None)
        missed = await confirming.settle(tx, unheard, again_seconds=later)
        live = await jobs.find_many(tx, going)
        enqueued = deps.announcer.enqueued
        await send(tx, deps, [enqueued(job.id, job.spec.team, job.spec.pin_token) for job in live])
        await announce_ended(tx, deps, await jobs.find_many(tx, missed))
    if missed:
        log.warning("job.unheard", jobs=len(missed), first=min(missed))
    return len(found) == limit
