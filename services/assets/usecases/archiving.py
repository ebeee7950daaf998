"""Archives: the packager writes the bytes by blob_url, assets makes them a file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from libs.common.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
)
from services.assets.domain import File, FileKind, NewFile, blob_key, is_archive_key
from services.assets.store import endings, files
from services.assets.usecases.deps import Deps
from services.assets.usecases.resolving import ReadableFile, readable


@dataclass(frozen=True, slots=True)
class WritableBlob:
    """A key for a new blob and the blob_url to write it by."""

    blob_key: str
    write_url: str


def begin_archive(deps: Deps, team: str) -> WritableBlob:
    """Where a zip may be written; it is nobody's file until `store_archive`."""
    key = blob_key(team, FileKind.ARCHIVE, deps.ids.token())
    return WritableBlob(key, deps.blobs.write_url(key))


async def store_archive(deps: Deps, new: NewFile) -> File:
    """The file of a written zip; the same one again for the same blob key.

    Raises:
        InvalidArgumentError: the key is not one that BeginArchive gave to this team.
        FailedPreconditionError: BLOB_INCOMPLETE, there is no blob of this size, or it has waited
            so long that the orphan sweep may take it.
        NotFoundError: it was stored, and deleted since.
    """
    team, key = new.team, new.blob_key
    if not is_archive_key(team, key):
        violation = FieldViolation("blob_key", "is not of BeginArchive", "BAD_BLOB_KEY")
        raise InvalidArgumentError(
            "the blob key is not of BeginArchive", reason="BAD_BLOB_KEY", violations=[violation]
        )
    async with deps.db.read(team) as tx:
        # In this order: what is stored between the two looks is found, and not taken for deleted.
        was_stored = await files.was_stored(tx, team, key)
        known = await files.find_blob(tx, team, key)
    if known is not None:
        return known
    if was_stored:  # the blob of a deleted file may go at any moment
        raise NotFoundError("file")
    stat = await deps.blobs.stat(key)
    sweepable = deps.clock.now() - timedelta(seconds=deps.figures.orphan_seconds / 2)
    if stat is None or stat.size != new.content.size_bytes or stat.modified < sweepable:
        raise FailedPreconditionError(
            "there is no fresh blob of this size under the key", reason="BLOB_INCOMPLETE"
        )
    async with deps.db.transaction(team) as tx:
        added = await files.add(tx, new)
        if added is not None and new.slot.job_id:
            # A review that comes now waits for us, and then finds the zip itself.
            said = await endings.review_state(tx, team, new.slot.job_id)
            await files.review(tx, team, new.slot.job_id, said)
        file = added or await files.find_blob(tx, team, key)
    if file is None:
        raise NotFoundError("file")
    return file


async def resolve_archive(deps: Deps, team: str, file_id: int) -> ReadableFile:
    """An archive and where to read it; NotFoundError, also for files that are no archives."""
    async with deps.db.read(team) as tx:
        file = await files.find(tx, team, file_id)
    if file is None or file.kind is not FileKind.ARCHIVE:
        raise NotFoundError("file")
    return readable(deps, file)
