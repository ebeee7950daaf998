"""CreateArchive: the archive of a job, a batch or a folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from libs.common import request_keys
from libs.common.db import Tx
from libs.common.errors import ContentshopError, NotFoundError
from libs.common.request_keys import RequestKey
from services.packager import tables
from services.packager.domain import (
    Archive,
    ArchiveState,
    EndedBatch,
    EndedJob,
    FolderImages,
    Source,
    SourceKind,
    WantedArchive,
)
from services.packager.store import archives
from services.packager.usecases.deps import Deps
from services.packager.usecases.reading import ArchiveFiles


class Endings(Protocol):
    """enqueue, as far as creating needs it."""

    async def job(self, team: str, job_id: int) -> EndedJob:
        """A job that is over.

        Raises:
            NotFoundError: no such job of the team.
            FailedPreconditionError: ARCHIVE_NOT_READY, it lives.
        """
        ...

    async def batch(self, team: str, batch_id: int) -> EndedBatch:
        """A batch whose every job is over; raises as `job` does."""
        ...


class Folders(ArchiveFiles, Protocol):
    """assets, as far as creating needs it."""

    async def folder(self, team: str, folder_id: int) -> FolderImages:
        """A folder as it stands.

        Raises:
            NotFoundError: no such folder of the team.
            FailedPreconditionError: FOLDER_TOO_LARGE.
        """
        ...


class CreateArchive:
    """The archive that is there, or a new one; built again where it FAILED or its file is gone."""

    def __init__(self, deps: Deps, endings: Endings, assets: Folders) -> None:
        self._deps = deps
        self._endings = endings
        self._assets = assets

    async def __call__(self, key: RequestKey, source: Callable[[], Source]) -> Archive:
        """The archive as it stands, or as it is now where the request_id was used before.

        Args:
            key: the caller's key; its request_id may be empty.
            source: checks the request's shape; called only when the key is new.

        Raises:
            AlreadyExistsError: IDEMPOTENCY_KEY_REUSED.
            NotFoundError: no such job, batch or folder of the team.
            FailedPreconditionError: ARCHIVE_NOT_READY, ARCHIVE_NOT_APPLICABLE, FOLDER_TOO_LARGE.
            UnavailableError: who must be asked is away.
        """
        async with self._deps.db.read(key.team) as tx:
            known = await _replay(tx, key)
            replayed = known is not None
            if known is None:
                what = source()
                if what.kind is SourceKind.JOB:
                    known = await archives.find_newest(tx, key.team, what)
        if known is not None and (replayed or known.hidden_at is None):
            gone = await self._file_is_gone(known)
            return await self._settle(key, known, gone=gone, replayed=replayed)
        wanted = await self._wanted(key, what)
        async with self._deps.db.read(key.team) as tx:
            known = await archives.find_same(tx, wanted)
        gone = known is not None and await self._file_is_gone(known)
        archive = await self._ask(key, wanted, known, gone=gone)
        if known is None and what.kind is not SourceKind.FOLDER:
            await self._look_again(key, wanted)
        return archive

    async def _look_again(self, key: RequestKey, wanted: WantedArchive) -> None:
        """Hides a new archive where enqueue does not say any more that its images are shown.

        A rejection that was taken in before the row was there found nothing to hide.
        """
        try:
            shown = (await self._wanted(key, wanted.source)).contents == wanted.contents
        except ContentshopError:
            shown = False  # asked for again, it is shown again
        if not shown:
            async with self._deps.db.duty() as tx:
                await archives.hide(tx, key.team, [wanted.source])

    async def _wanted(self, key: RequestKey, source: Source) -> WantedArchive:
        """What goes into the archive, said by who knows."""
        match source.kind:
            case SourceKind.JOB:
                return (await self._endings.job(key.team, source.id)).wanted()
            case SourceKind.BATCH:
                return (await self._endings.batch(key.team, source.id)).wanted()
            case SourceKind.FOLDER:
                folder = await self._assets.folder(key.team, source.id)
                return folder.wanted(self._deps.clock.now(), key.request_id)

    async def _file_is_gone(self, archive: Archive) -> bool:
        """Whether a READY archive has no file at assets any more: deleted, or removed by age."""
        if archive.state is not ArchiveState.READY:
            return False
        try:
            await self._assets.resolve_archive(archive.team, archive.file_id)
        except NotFoundError:
            return True
        return False

    async def _settle(
        self, key: RequestKey, archive: Archive, *, gone: bool, replayed: bool
    ) -> Archive:
        """A known archive, begun again where that helps; no FAILED one by a replay."""
        again = gone or (archive.state is ArchiveState.FAILED and not replayed)
        if not again and (replayed or not key.request_id):
            return archive
        async with self._deps.db.transaction(key.team) as tx:
            if again:
                archive = await self._begin_again(tx, archive)
            return archive if replayed else await _keep(tx, key, archive)

    async def _ask(
        self, key: RequestKey, wanted: WantedArchive, known: Archive | None, *, gone: bool
    ) -> Archive:
        """The wanted archive, new or known, the newest of its source; shown again if hidden."""
        async with self._deps.db.transaction(key.team) as tx:
            archive = await archives.ask(tx, wanted)
            if known is not None and known.hidden_at is not None:
                # Hidden anew since it was read: it stays so, for we may have asked before that.
                await archives.show(tx, known)
            same = known is not None and known.fence == archive.fence
            if archive.state is ArchiveState.FAILED or (gone and same):
                archive = await self._begin_again(tx, archive)
            elif archive.state is ArchiveState.PENDING:
                tx.on_commit(self._deps.wake_builder)
            return await _keep(tx, key, archive)

    async def _begin_again(self, tx: Tx, archive: Archive) -> Archive:
        tx.on_commit(self._deps.wake_builder)
        tx.on_commit(self._deps.wake_watchers)
        begun = await archives.begin_again(tx, archive)
        return begun or await archives.find(tx, archive.team, archive.id) or archive


async def _keep(tx: Tx, key: RequestKey, archive: Archive) -> Archive:
    """The archive, its id kept under the key; or what the same call made at the same time."""
    if key.request_id and not await request_keys.claim(
        tx, tables.idempotency_keys, key, archive.id
    ):
        return await _replay(tx, key) or archive
    return archive


async def _replay(tx: Tx, key: RequestKey) -> Archive | None:
    """What the key made before, as it is now; None also where retention has removed it."""
    kept = await request_keys.find_same(tx, tables.idempotency_keys, key)
    return await archives.find(tx, key.team, kept.resource_id) if kept else None
