"""Looking at jobs, and canceling them."""

from __future__ import annotations

from libs.common.errors import FailedPreconditionError, NotFoundError
from services.enqueue.domain import Event, Job, JobState, cursor_past_end
from services.enqueue.store import audit, events, jobs
from services.enqueue.store.jobs import JobFilter
from services.enqueue.usecases.deps import Deps, cancel_jobs, lock_team


async def get_job(deps: Deps, team: str, job_id: int) -> Job:
    """A team's job; NotFoundError."""
    async with deps.db.read(team) as tx:
        job = await jobs.find(tx, job_id, team)
    if job is None:
        raise NotFoundError("job")
    return job


async def list_jobs(
    deps: Deps, team: str, which: JobFilter, *, before_id: int | None, limit: int
) -> list[Job]:
    """A page of a team's jobs, newest first."""
    async with deps.db.read(team) as tx:
        return await jobs.page(tx, team, which, before_id=before_id, limit=limit)


async def list_events(
    deps: Deps, team: str, job_id: int, *, after: int, limit: int
) -> tuple[list[Event], bool]:
    """A job's events behind a number, and whether there are more; NotFoundError."""
    async with deps.db.read(team) as tx:
        job = await jobs.find(tx, job_id, team)
        if job is None:
            raise NotFoundError("job")
        if after > job.last_sequence:
            raise cursor_past_end()
        found = await events.after(tx, job_id, after, limit + 1, team=team)
    return found[:limit], len(found) > limit


async def cancel_job(deps: Deps, team: str, job_id: int, *, actor: str) -> Job:
    """Cancels a job: its worker is told at once, its place goes to the team's next.

    Raises:
        NotFoundError: not this team's.
        FailedPreconditionError: JOB_TERMINAL, it has succeeded or failed.
    """
    async with deps.db.transaction(team) as tx:
        team_limit = await lock_team(tx, team)
        job = await jobs.lock(tx, job_id)
        if job is None or job.spec.team != team:
            raise NotFoundError("job")
        if job.state is JobState.CANCELED:
            return await jobs.find(tx, job_id, team) or job
        if job.terminal:
            raise FailedPreconditionError("the job has ended", reason="JOB_TERMINAL")
        (canceled,) = await cancel_jobs(tx, deps, [job], team_limit=team_limit)
        details = {"old": job.state}
        await audit.add(tx, team, actor, "CANCEL_JOB", job_id=job_id, details=details)
    return canceled
