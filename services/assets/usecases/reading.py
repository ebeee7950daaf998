"""Looking at files, and reading them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from libs.common.errors import DataLossError, FailedPreconditionError, NotFoundError
from services.assets.domain import File
from services.assets.store import files
from services.assets.store.files import FileFilter
from services.assets.usecases.deps import Deps

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """A URL for browsers, and when it stops working."""

    url: str
    expires_at: datetime


async def get_file(deps: Deps, team: str, file_id: int) -> File:
    """A team's file; NotFoundError."""
    async with deps.db.read(team) as tx:
        file = await files.find(tx, team, file_id)
    if file is None:
        raise NotFoundError("file")
    return file


async def get_shown_file(deps: Deps, team: str, file_id: int, *, reviewer: bool) -> File:
    """A team's file whose bytes the caller may have.

    Args:
        deps: shared means.
        team: whose.
        file_id: which.
        reviewer: sees hidden images too: who is to judge them must.

    Raises:
        NotFoundError: unknown, deleted or another team's.
        FailedPreconditionError: NOT_APPROVED.
    """
    file = await get_file(deps, team, file_id)
    if deps.figures.review_required and file.hidden and not reviewer:
        raise FailedPreconditionError("a review has not approved the image", reason="NOT_APPROVED")
    return file


async def list_files(
    deps: Deps, team: str, which: FileFilter, *, before_id: int | None, limit: int
) -> list[File]:
    """A page of a team's files, newest first."""
    async with deps.db.read(team) as tx:
        return await files.page(tx, team, which, before_id=before_id, limit=limit)


async def read_file(deps: Deps, file: File) -> AsyncGenerator[bytes, None]:
    """A file's bytes, checked on the way.

    Raises:
        NotFoundError: deleted in the meantime.
        DataLossError: the stored bytes are not the file's; what came so far is worthless.
    """
    digest = hashlib.sha256()
    try:
        async with aclosing(deps.blobs.read(file.blob_key)) as chunks:  # type: ignore[type-var]  # the stores give generators
            async for chunk in chunks:
                await asyncio.to_thread(digest.update, chunk)
                yield chunk
    except NotFoundError:
        await get_file(deps, file.team, file.id)  # raises, where it was deleted
        raise _lost(file, "missing") from None
    if digest.hexdigest() != file.content.sha256:
        raise _lost(file, "changed")


async def create_download_url(deps: Deps, file: File, ttl_seconds: int) -> PublicUrl:
    """A URL for browsers; FailedPreconditionError NO_PUBLIC_URLS."""
    expires_at = deps.clock.now() + timedelta(seconds=ttl_seconds)
    url = await asyncio.to_thread(
        deps.blobs.public_read_url, file.blob_key, file.filename, ttl_seconds
    )
    if url is None:
        raise FailedPreconditionError(
            "this blob store has no public URLs; use DownloadFile", reason="NO_PUBLIC_URLS"
        )
    return PublicUrl(url, expires_at)


def _lost(file: File, what: str) -> DataLossError:
    log.error("blob.data_loss", file_id=file.id, blob=what)
    return DataLossError("the stored bytes do not match their checksum")
