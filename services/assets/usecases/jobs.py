"""What assets does when enqueue says that a job was enqueued or has ended.

Messages come at least once and in any order; each use case may run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from services.assets.store import endings, files, pins
from services.assets.usecases.deps import Deps

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobInputs:
    """Whose job it is, and the token its inputs were pinned under (perhaps empty)."""

    team: str
    job_id: int
    pin_token: str


async def keep_inputs(deps: Deps, job: JobInputs) -> None:
    """The job is durable: its inputs stay pinned until its end, which may be known already."""
    if not job.pin_token:
        return
    async with deps.db.transaction(job.team) as tx:
        if await endings.ended(tx, job.team, job.job_id):
            await pins.release(tx, job.team, job.pin_token)
        else:
            await pins.make_lasting(tx, job.team, job.pin_token)


async def end_job(
    deps: Deps, job: JobInputs, output_ids: Sequence[int], source_task_id: str
) -> None:
    """The job is over: inputs are released, outputs become visible, what else it made goes."""
    async with deps.db.transaction(job.team) as tx:
        await endings.end(tx, job.team, job.job_id)
        if job.pin_token:
            await pins.release(tx, job.team, job.pin_token)
        await files.record(tx, job.team, job.job_id, output_ids, source_task_id)
        dropped = await files.delete_unrecorded(tx, job.team, job.job_id)
        if dropped:
            tx.on_commit(deps.wake_removals)
    if dropped:
        log.info("job.unrecorded_dropped", job_id=job.job_id, files=dropped)
