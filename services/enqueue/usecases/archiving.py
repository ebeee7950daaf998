"""The zip's state on its job, as the packager reports it."""

from __future__ import annotations

from libs.common.errors import FailedPreconditionError, NotFoundError
from services.enqueue.domain import Archive, ArchiveState, EventKind, Fault, Job, JobState
from services.enqueue.store import archives, images, jobs
from services.enqueue.store.events import about
from services.enqueue.usecases.deps import Deps, announce_ended, tell


async def record_archive(deps: Deps, team: str, job_id: int, archive: Archive) -> None:
    """Records how a zip came out. READY stays READY, a zip built later replaces it.

    Repeats change nothing, nor does a report that comes late.

    Raises:
        NotFoundError: no such job of the team.
        FailedPreconditionError: ARCHIVE_NOT_APPLICABLE, the job has not ended or was canceled.
    """
    async with deps.db.duty() as tx:
        job = await jobs.lock(tx, job_id)
        if job is None or job.spec.team != team:
            raise NotFoundError("job")
        if not job.terminal or job.state is JobState.CANCELED:
            raise FailedPreconditionError(
                "a job in this state has no archive", reason="ARCHIVE_NOT_APPLICABLE"
            )
        if not archive.replaces(job.archive):
            return
        recorded = await archives.record(tx, job_id, archive)
        ready = archive.state is ArchiveState.READY
        kind = EventKind.ARCHIVE_READY if ready else EventKind.ARCHIVE_FAILED
        news = about(recorded, kind, file_id=archive.file_id, fault=archive.fault)
        await tell(tx, deps, [news])


async def ring_for_archives(deps: Deps, limit: int) -> bool:
    """Asks the packager again for zips that are late, and gives up those asked for too often."""
    late = Fault("PACKAGER_TIMED_OUT", "the zip was not built in time")
    async with deps.db.duty() as tx:
        overdue = await archives.overdue(tx, limit)
        late_jobs: list[Job] = []
        for job, rings in overdue:
            if rings + 1 >= deps.limits.archive_rings:
                failed = await archives.record(tx, job.id, Archive(ArchiveState.FAILED, fault=late))
                await tell(tx, deps, [about(failed, EventKind.ARCHIVE_FAILED, fault=late)])
                continue
            late_jobs.append(await images.of_job(tx, job))
            await archives.rung(tx, job.id, deps.limits.archive_ring_seconds * 2 ** (rings + 1))
        await announce_ended(tx, deps, late_jobs)
    return len(overdue) == limit
