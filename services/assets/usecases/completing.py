"""Uploads by URL: the bytes go straight into the blob store, and are a file once they are checked.

begun      by CreateUpload: a row, a key of its own for the raw blob, and bytes set aside.
put        by whoever has the URL, as often as it lives; nobody but CompleteUpload reads it.
completed  by CompleteUpload: what was put is read once, checked and stored like any upload, under
           another key; the raw blob goes. A put after that is an orphan.
expired    when nobody completed it in time: NOT_FOUND. The reservation runs out with it, the
           orphan sweep takes the raw blob, and retention the row.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from libs.common import request_keys
from libs.common.db import Tx
from libs.common.errors import (
    AbortedError,
    ContentshopError,
    FailedPreconditionError,
    NotFoundError,
)
from libs.common.request_keys import RequestKey
from services.assets import tables
from services.assets.domain import File, PendingUpload, Upload, raw_key
from services.assets.store import files, pending, storage
from services.assets.usecases.deps import Deps, drop_blob
from services.assets.usecases.storing import Reservation, set_aside
from services.assets.usecases.uploading import Intake


@dataclass(frozen=True, slots=True)
class PutUrl:
    """Where the bytes of an upload may be put, and until when."""

    upload_id: int
    url: str
    expires_at: datetime


async def create_upload(deps: Deps, key: RequestKey, header: Callable[[], Upload]) -> PutUrl:
    """A new upload's URL; for a request_id seen before a fresh URL of the same upload.

    Args:
        deps: shared means.
        key: the caller's key; its request_id may be empty.
        header: checks what the uploader says; called only when the key is new.

    Raises:
        InvalidArgumentError: what is wrong with what is said.
        AlreadyExistsError: IDEMPOTENCY_KEY_REUSED.
        NotFoundError: this request_id's upload has expired.
        FailedPreconditionError: NO_PUBLIC_URLS.
        ResourceExhaustedError: STORAGE_QUOTA.
    """
    if (replayed := await _replay(deps, key)) is not None:
        return replayed
    said = header()
    reservation = Reservation(key.team, deps.ids.token())
    # Signed before anything is written: a store without URLs keeps no rows.
    url = await _signed(
        deps,
        raw_key(key.team, reservation.token),
        said.size_bytes,
        deps.figures.upload_seconds,
    )
    begun = await _begin(deps, key, said, reservation)
    if begun is not None:
        return PutUrl(begun.id, url, begun.expires_at)
    if (replayed := await _replay(deps, key)) is None:  # so old that it was forgotten in between
        raise AbortedError("the upload met another one", retry_after_seconds=0.1)
    return replayed


async def _begin(
    deps: Deps, key: RequestKey, said: Upload, reservation: Reservation
) -> PendingUpload | None:
    """The new upload, its bytes set aside; None when its request_id has one meanwhile."""
    team = key.team
    async with deps.db.transaction(team) as tx:
        # Held to the end, so that of two with one key the second sees the first.
        await storage.lock(tx, team)
        if await request_keys.find_same(tx, tables.idempotency_keys, key) is not None:
            return None
        await set_aside(tx, deps, reservation, said.size_bytes)
        seconds = deps.figures.upload_seconds
        begun = await pending.add(tx, team, reservation.token, said, seconds)
        if key.request_id:
            await request_keys.add(tx, tables.idempotency_keys, [(key, begun.id)])
    return begun


async def _replay(deps: Deps, key: RequestKey) -> PutUrl | None:
    if not key.request_id:
        return None
    async with deps.db.read(key.team) as tx:
        kept = await request_keys.find_same(tx, tables.idempotency_keys, key)
        if kept is None:
            return None
        begun = await pending.find(tx, key.team, kept.resource_id, completed=False)
    if begun is None:
        raise NotFoundError("upload")
    left = (begun.expires_at - deps.clock.now()).total_seconds()
    url = await _signed(deps, begun.raw_key, begun.said.size_bytes, left)
    return PutUrl(begun.id, url, begun.expires_at)


async def _signed(deps: Deps, blob_key: str, size_bytes: int, seconds: float) -> str:
    life = max(1, math.ceil(seconds))  # whole seconds are what S3 knows
    url = await asyncio.to_thread(deps.blobs.public_write_url, blob_key, size_bytes, life)
    if url is None:
        raise FailedPreconditionError(
            "this blob store has no public URLs; use UploadFile", reason="NO_PUBLIC_URLS"
        )
    return url


class _CompletedError(Exception):
    """Another call has made this upload a file while we stored ours."""


class CompleteUpload:
    """Makes what was put a file.

    Args:
        deps: shared means.
        intake: where its bytes are judged.
    """

    def __init__(self, deps: Deps, intake: Intake) -> None:
        self._deps = deps
        self._intake = intake

    async def __call__(self, team: str, upload_id: int) -> File:
        """The stored file; the same one again for a repeated call.

        Raises:
            NotFoundError: no such upload of this team, or it expired; or its file was deleted.
            FailedPreconditionError: UPLOAD_INCOMPLETE.
            InvalidArgumentError: what is wrong with the file.
            ResourceExhaustedError: STORAGE_QUOTA, SERVER_BUSY, STORAGE_FULL.
            UnavailableError: nothing is known of the result; call again.
        """
        begun = await self._find(team, upload_id)
        if begun.file_id:
            return await self._file_of(begun)

        async def complete(tx: Tx, file: File) -> None:
            if not await pending.complete(tx, team, upload_id, file.id):
                raise _CompletedError

        # Not given back when this fails: the upload stays open, and the bytes set aside with it.
        reservation = Reservation(team, begun.token)
        try:
            async with aclosing(self._deps.blobs.read(begun.raw_key)) as blob:  # type: ignore[type-var]  # the stores give generators
                file = await self._intake(begun.said, _PutBytes(blob), reservation, complete)
        except (_CompletedError, ContentshopError):
            # Another call may have made it a file meanwhile, and taken away what was put.
            completed = await self._find(team, upload_id)
            if not completed.file_id:
                raise
            return await self._file_of(completed)
        await drop_blob(self._deps, begun.raw_key)
        return file

    async def _find(self, team: str, upload_id: int) -> PendingUpload:
        async with self._deps.db.read(team) as tx:
            found = await pending.find(tx, team, upload_id, completed=True)
        if found is None:
            raise NotFoundError("upload")
        return found

    async def _file_of(self, completed: PendingUpload) -> File:
        async with self._deps.db.read(completed.team) as tx:
            file = await files.find(tx, completed.team, completed.file_id)
        if file is None:
            raise NotFoundError("file")
        return file


class _PutBytes:
    """What was put, as chunks; how long each may take is the store's business."""

    def __init__(self, blob: AsyncIterator[bytes]) -> None:
        self._blob = blob

    async def next(self) -> bytes | None:
        """The next bytes; FailedPreconditionError UPLOAD_INCOMPLETE where there are none."""
        try:
            return await anext(self._blob, None)
        except NotFoundError:
            raise FailedPreconditionError(
                "nothing was put to the upload's URL yet", reason="UPLOAD_INCOMPLETE"
            ) from None

    def progressed(self) -> None:
        """Nothing to do: no client is waited for."""
