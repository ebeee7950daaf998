"""Asking for archives: by a job's end, and by CreateArchive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from libs.common import request_keys
from libs.common.db import Tx
from libs.common.errors import NotFoundError
from libs.common.request_keys import RequestKey
from services.packager import tables
from services.packager.domain import Archive, ArchiveState, EndedJob
from services.packager.store import archives
from services.packager.usecases.deps import Deps


class EndedJobs(Protocol):
    """enqueue, as far as creating needs it."""

    async def find(self, team: str, job_id: int) -> EndedJob:
        """A job that is over.

        Raises:
            NotFoundError: no such job of the team.
            FailedPreconditionError: ARCHIVE_NOT_READY, it lives.
        """
        ...


async def want_archive(deps: Deps, job: EndedJob) -> None:
    """Makes the archive of a job that ended, or says again how it came out. Idempotent."""
    async with deps.db.duty() as tx:
        if await archives.add(tx, job):
            tx.on_commit(deps.wake_builder)
        elif await archives.ask_report(tx, job.team, job.job_id):
            tx.on_commit(deps.wake_reporter)


class CreateArchive:
    """The archive of a job: the one there is, tried again if it FAILED, or a new one."""

    def __init__(self, deps: Deps, jobs: EndedJobs) -> None:
        self._deps = deps
        self._jobs = jobs

    async def __call__(self, key: RequestKey, job_id: Callable[[], int]) -> Archive:
        """The archive as it stands, or as it is now where the request_id was used before.

        Args:
            key: the caller's key; its request_id may be empty.
            job_id: checks the request's shape; called only when the key is new.

        Raises:
            AlreadyExistsError: IDEMPOTENCY_KEY_REUSED.
            NotFoundError: no such job of the team.
            FailedPreconditionError: ARCHIVE_NOT_READY, ARCHIVE_NOT_APPLICABLE.
        """
        async with self._deps.db.read(key.team) as tx:
            replayed = await _replay(tx, key)
        if replayed is not None:
            return replayed
        wanted = job_id()
        async with self._deps.db.read(key.team) as tx:
            known = await archives.find_by_job(tx, key.team, wanted)
        job = None
        if known is None:
            job = await self._jobs.find(key.team, wanted)
            job.check_applicable()
        return await self._create(key, wanted, job)

    async def _create(self, key: RequestKey, job_id: int, job: EndedJob | None) -> Archive:
        async with self._deps.db.transaction(key.team) as tx:
            if job is not None and await archives.add(tx, job):
                tx.on_commit(self._deps.wake_builder)
            archive = await archives.find_by_job(tx, key.team, job_id)
            if archive is None:
                raise NotFoundError("archive")
            if archive.state is ArchiveState.FAILED:
                tx.on_commit(self._deps.wake_builder)
                again = await archives.try_again(tx, key.team, archive.id)
                archive = again or await archives.find(tx, key.team, archive.id) or archive
            if key.request_id and not await request_keys.claim(
                tx, tables.idempotency_keys, key, archive.id
            ):
                return await _replay(tx, key) or archive  # the same call, at the same time
        return archive


async def _replay(tx: Tx, key: RequestKey) -> Archive | None:
    """What the key made before, as it is now."""
    kept = await request_keys.find_same(tx, tables.idempotency_keys, key)
    return await archives.find(tx, key.team, kept.resource_id) if kept else None
