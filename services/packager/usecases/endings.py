"""What a job's end, told by a message, means for archives: wanted, hidden, shown again.

A message is a hint and may be late: who may see a job's images is asked of enqueue, each time a
message says other than the row.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from libs.common.errors import FailedPreconditionError, NotFoundError
from services.packager.domain import EndedJob, Source, SourceKind
from services.packager.store import archives
from services.packager.usecases.deps import Deps

log = structlog.get_logger()


class JobOutputs(Protocol):
    """enqueue, as far as following reviews needs it."""

    async def job(self, team: str, job_id: int) -> EndedJob:
        """A job that is over.

        Raises:
            NotFoundError: no such job of the team.
            FailedPreconditionError: ARCHIVE_NOT_READY, it lives.
        """
        ...


async def want_archive(deps: Deps, job: EndedJob) -> None:
    """Makes the archive of a job that ended, or says again how it came out. Idempotent.

    Where enqueue has heard that it FAILED and still wants it, it is tried again: an approval came
    since. A message of before that comes late costs a build, and no more.
    """
    async with deps.db.duty() as tx:
        if await archives.add(tx, job.wanted()) or await archives.begin_with(tx, job.wanted()):
            tx.on_commit(deps.wake_builder)
            return
        failed = await archives.find_failure_told(tx, job.team, job.job_id)
        if failed is not None and await archives.begin_again(tx, failed):
            tx.on_commit(deps.wake_builder)
            tx.on_commit(deps.wake_watchers)
        elif await archives.ask_report(tx, job.team, job.job_id):
            tx.on_commit(deps.wake_reporter)


async def hide_archives(deps: Deps, jobs: JobOutputs, job: EndedJob, batch_id: int) -> None:
    """Hands out no archive with the job's images any more, if enqueue still says they are hidden.

    A batch's archives are hidden whole: CreateArchive gives one without these images.
    """
    sources = [Source(SourceKind.JOB, job.job_id)]
    if batch_id:
        sources.append(Source(SourceKind.BATCH, batch_id))
    async with deps.db.read_all() as tx:
        known = await archives.any_of(tx, job.team, sources)
    if not known or not await _hidden(jobs, job):
        return
    async with deps.db.duty() as tx:
        await archives.hide(tx, job.team, sources)
    log.info("archives.hidden", job_id=job.job_id, batch_id=batch_id)


async def show_archive(deps: Deps, jobs: JobOutputs, job: EndedJob) -> None:
    """Hands out a hidden archive of the job again, if enqueue says that its images are shown."""
    async with deps.db.read_all() as tx:
        source = Source(SourceKind.JOB, job.job_id)
        archive = await archives.find_newest(tx, job.team, source)
    if archive is None or archive.hidden_at is None or await _hidden(jobs, job):
        return
    async with deps.db.duty() as tx:
        await archives.show(tx, archive)


async def _hidden(jobs: JobOutputs, job: EndedJob) -> bool:
    try:
        return (await jobs.job(job.team, job.job_id)).hidden
    except (NotFoundError, FailedPreconditionError):
        return True  # it is not over, or gone: nothing of it is to be shown
