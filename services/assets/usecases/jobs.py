"""What assets does when enqueue says that a job was enqueued or has ended.

Messages come at least once and in any order; each use case may run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from libs.common.group_commit import GroupCommit
from services.assets.domain import Filing, Review
from services.assets.store import endings, files, pins
from services.assets.store.files import Recorded
from services.assets.store.pins import Pin
from services.assets.usecases.deps import Deps
from services.assets.usecases.filing import put_in_folders

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobEnd:
    """What enqueue says of a job's outputs, and where they go."""

    recorded: Recorded
    filing: Filing
    review: Review


@dataclass(frozen=True, slots=True)
class LivingJob:
    """A job that enqueue, restored from a copy, says is not over, and what it is made of."""

    team: str
    job_id: int
    pin_token: str
    file_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JobInputs:
    """Whose job it is, and the token its inputs were pinned under (perhaps empty)."""

    team: str
    job_id: int
    pin_token: str


class KeepInputs:
    """Makes the pins of new jobs last; what comes while a transaction runs shares the next.

    Args:
        deps: shared means.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self.commits: GroupCommit[JobInputs, None] = GroupCommit(self._keep)

    async def __call__(self, job: JobInputs) -> None:
        """The job is durable: its inputs stay pinned until its end, which may be known already."""
        if job.pin_token:
            await self.commits.submit(job)

    async def _keep(self, group: Sequence[JobInputs]) -> Sequence[None]:
        async with self._deps.db.transaction(*sorted({job.team for job in group})) as tx:
            over = await endings.ended_among(tx, {(job.team, job.job_id) for job in group})
            names = {(job.team, job.pin_token): (job.team, job.job_id) in over for job in group}
            await pins.release(tx, [name for name, ended in names.items() if ended])
            await pins.make_lasting(tx, [name for name, ended in names.items() if not ended])
        return [None] * len(group)


async def unheard_endings(deps: Deps, team: str, reviews: Mapping[int, int]) -> list[int]:
    """Those of a team's ended jobs of which no end, or no review that new, was heard, in order.

    Args:
        deps: shared means.
        team: whose.
        reviews: job id → when its review was made, in microseconds since 1970; 0: never mind.
    """
    async with deps.db.read(team) as tx:
        heard = await endings.heard(tx, team, reviews)
    return [job_id for job_id, made_us in reviews.items() if heard.get(job_id, -1) < made_us]


async def reopen_job(deps: Deps, job: LivingJob) -> None:
    """The job lives after all: it may store images again, and its inputs are pinned to its end.

    Inputs that were deleted since are gone: the job fails by them, and says so.
    """
    async with deps.db.transaction(job.team) as tx:
        await endings.reopen(tx, job.team, job.job_id)
        if not job.pin_token:
            return
        there = await files.find_images(tx, job.team, job.file_ids, hold=True)
        new = [Pin(job.team, job.pin_token, file_id) for file_id in sorted(there)]
        await pins.add(tx, new, deps.figures.pin_seconds)
        await pins.make_lasting(tx, [(job.team, job.pin_token)])
    log.info("job.reopened", job_id=job.job_id, inputs=len(there))


async def end_job(deps: Deps, job: JobInputs, end: JobEnd) -> None:
    """The job is over: inputs are released, outputs become visible, what else it made goes.

    Outputs go to their folders as they become visible, in the same write: when the end is told
    again they are visible already, and nothing is done for them but what a later review says.
    """
    async with deps.db.transaction(job.team) as tx:
        newest = await endings.end(tx, job.team, job.job_id, end.review)
        if job.pin_token:
            await pins.release(tx, [(job.team, job.pin_token)])
        made = await files.record(tx, job.team, job.job_id, end.recorded, end.review.state)
        if made:
            await put_in_folders(tx, job.team, end.filing, made)
        if newest and end.review.made_us:
            await files.review(tx, job.team, job.job_id, end.review.state)
        dropped = await files.delete_unrecorded(tx, job.team, job.job_id)
        if dropped:
            tx.on_commit(deps.wake_removals)
    if dropped:
        log.info("job.unrecorded_dropped", job_id=job.job_id, files=dropped)
