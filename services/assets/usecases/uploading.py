"""UploadFile: from a client's stream to a durable file; and how any upload becomes one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from libs.common import request_keys
from libs.common.db import Tx
from libs.common.errors import AbortedError, NotFoundError
from libs.common.request_keys import RequestKey
from services.assets import tables
from services.assets.domain import File, FileKind, NewFile, Upload
from services.assets.receiving import Chunks, Places, Received
from services.assets.store import files
from services.assets.usecases.deps import Deps, content_of, store
from services.assets.usecases.storing import Reservation, reserved, settle


class Intake:
    """Takes bytes in, judges them whole, and stores what may stay: all uploads come through here.

    Args:
        deps: shared means.
        places: uploads in memory at once.
    """

    def __init__(self, deps: Deps, places: Places) -> None:
        self._deps = deps
        self._places = places

    async def __call__(
        self,
        upload: Upload,
        chunks: Chunks,
        reservation: Reservation,
        beside: Callable[[Tx, File], Awaitable[None]],
    ) -> File:
        """The stored file, durable.

        Args:
            upload: what was said of it.
            chunks: the bytes.
            reservation: that the file's bytes are taken from.
            beside: what is written in the file's transaction, and what rolls it back by raising.

        Raises:
            InvalidArgumentError: what is wrong with the file.
            DeadlineExceededError: UPLOAD_STALLED.
            ResourceExhaustedError: STORAGE_QUOTA, SERVER_BUSY, STORAGE_FULL.
            UnavailableError: nothing is known of the result.
        """
        team = reservation.team
        async with self._places.place(team):
            chunks.progressed()  # waiting for the place was not the client's doing
            with Received(upload.size_bytes, memory_bytes=upload.size_bytes) as received:
                await received.take(chunks)
                inspected = await self._deps.inspector.inspect(
                    received.data,
                    sha256=upload.sha256,
                    declared_type=upload.content_type,
                    limits=self._deps.figures.upload,
                )

                async def write(tx: Tx, blob_key: str) -> File:
                    content = content_of(inspected)
                    new = NewFile(team, FileKind.UPLOAD, upload.filename, blob_key, content)
                    file = await files.add(tx, new)
                    assert file is not None  # its blob key is new, and it has no slot
                    # Before the limit is asked: who was second in a race hears that, not a refusal.
                    await beside(tx, file)
                    await settle(tx, self._deps, reservation, file.content.size_bytes)
                    return file

                return await store(self._deps, team, FileKind.UPLOAD, inspected, write)


class _KeyTakenError(Exception):
    """Another upload with this request_id was committed while we stored ours."""


class UploadFile:
    """Stores the photo that a client's stream brings.

    Args:
        deps: shared means.
        intake: where its bytes are judged.
    """

    def __init__(self, deps: Deps, intake: Intake) -> None:
        self._deps = deps
        self._intake = intake

    async def __call__(self, key: RequestKey, header: Callable[[], Upload], chunks: Chunks) -> File:
        """The stored file, or the one this request_id stored before.

        Args:
            key: the caller's key; its request_id may be empty.
            header: checks what the uploader says; called only when the key is new.
            chunks: the bytes.

        Raises:
            InvalidArgumentError: what is wrong with the file.
            AlreadyExistsError: IDEMPOTENCY_KEY_REUSED.
            NotFoundError: this request_id's file was deleted since.
            DeadlineExceededError: UPLOAD_STALLED.
            ResourceExhaustedError: STORAGE_QUOTA, SERVER_BUSY, STORAGE_FULL.
            UnavailableError: nothing is known of the result; repeat with the same request_id.
        """
        if key.request_id and (replayed := await self._replay(key)) is not None:
            return replayed
        upload = header()

        async def claim(tx: Tx, file: File) -> None:
            if key.request_id and not await request_keys.claim(
                tx, tables.idempotency_keys, key, file.id
            ):
                raise _KeyTakenError

        try:
            async with reserved(self._deps, key.team, upload.size_bytes) as reservation:
                return await self._intake(upload, chunks, reservation, claim)
        except _KeyTakenError:
            replayed = await self._replay(key)
            if replayed is None:  # so old that it was forgotten in between
                raise AbortedError("the upload met another one", retry_after_seconds=0.1) from None
            return replayed

    async def _replay(self, key: RequestKey) -> File | None:
        async with self._deps.db.read(key.team) as tx:
            kept = await request_keys.find_same(tx, tables.idempotency_keys, key)
            if kept is None:
                return None
            file = await files.find(tx, key.team, kept.resource_id)
        if file is None:
            raise NotFoundError("file")
        return file
