"""Looking at archives, and reading them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol

from libs.common.blobs import CHUNK_BYTES, BlobUrls
from libs.common.errors import DataLossError, NotFoundError
from services.packager.domain import Archive, Source, StoredArchive
from services.packager.store import archives
from services.packager.usecases.deps import Deps

ArchiveKey = int | Source  # its own id, or what it is of


class ArchiveFiles(Protocol):
    """assets, as far as downloads need it."""

    async def resolve_archive(self, team: str, file_id: int) -> StoredArchive:
        """The zip's place and facts; NotFoundError when the file is deleted."""
        ...


async def get_archive(deps: Deps, team: str, key: ArchiveKey) -> Archive:
    """A team's archive, of several of one source the newest; NotFoundError."""
    async with deps.db.read(team) as tx:
        found = (
            await archives.find_newest(tx, team, key)
            if isinstance(key, Source)
            else await archives.find(tx, team, key)
        )
    if found is None:
        raise NotFoundError("archive")
    return found


async def stored_archive(files: ArchiveFiles, archive: Archive) -> StoredArchive:
    """Where the zip of a READY archive is.

    Raises:
        FailedPreconditionError: ARCHIVE_NOT_READY (also where its images may not be shown),
            ARCHIVE_FAILED.
        NotFoundError: its file was deleted; CreateArchive builds it again.
    """
    archive.check_ready()
    try:
        return await files.resolve_archive(archive.team, archive.file_id)
    except NotFoundError:
        raise NotFoundError("archive") from None


async def read_archive(blobs: BlobUrls, stored: StoredArchive) -> AsyncIterator[bytes]:
    """The zip in chunks of at most CHUNK_BYTES; the last is given only when all were right.

    A zip's directory is at its end, so what was read of a damaged one does not open.

    Raises:
        DataLossError: the bytes are not those that were stored.
        UnavailableError: the store is away.
    """
    digest = hashlib.sha256()
    left = stored.size_bytes
    held = b""
    async with aclosing(blobs.read(stored.blob_url)) as source:  # type: ignore[type-var]  # an AsyncGenerator in both forms
        async for chunk in source:
            left -= len(chunk)
            if left < 0:
                break
            await asyncio.to_thread(digest.update, chunk)
            for start in range(0, len(chunk), CHUNK_BYTES):
                if held:
                    yield held
                held = chunk[start : start + CHUNK_BYTES]
    if left or digest.hexdigest() != stored.sha256:
        raise DataLossError("the archive's bytes are not those that were stored")
    if held:
        yield held
