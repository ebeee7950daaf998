"""UploadFile: from a client's stream to a durable file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from libs.common import request_keys
from libs.common.db import Tx
from libs.common.errors import AbortedError, NotFoundError
from libs.common.request_keys import RequestKey
from services.assets import tables
from services.assets.domain import File, FileKind, NewFile
from services.assets.imaging import Inspected
from services.assets.receiving import Chunks, Places, Received
from services.assets.store import files
from services.assets.usecases.deps import Deps, content_of, store
from services.assets.usecases.storing import Reservation, reserved, settle


@dataclass(frozen=True, slots=True)
class Upload:
    """What the uploader says of the file, checked.

    Attributes:
        filename: cleaned.
        content_type: as declared; empty: nothing said.
        size_bytes: of what follows, exactly.
        sha256: likewise, lower-case hex; empty: nothing said.
    """

    filename: str
    content_type: str
    size_bytes: int
    sha256: str


class _KeyTakenError(Exception):
    """Another upload with this request_id was committed while we stored ours."""


class UploadFile:
    """Takes an upload in, judges it, and stores it.

    Args:
        deps: shared means.
        places: uploads in memory at once.
    """

    def __init__(self, deps: Deps, places: Places) -> None:
        self._deps = deps
        self._places = places

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
        async with (
            reserved(self._deps, key.team, upload.size_bytes) as reservation,
            self._places.place(key.team),
        ):
            chunks.progressed()  # waiting for the place was not the client's doing
            with Received(upload.size_bytes, memory_bytes=upload.size_bytes) as received:
                await received.take(chunks)
                inspected = await self._deps.inspector.inspect(
                    received.data,
                    sha256=upload.sha256,
                    declared_type=upload.content_type,
                    limits=self._deps.figures.upload,
                )
                return await self._store(key, upload, inspected, reservation)

    async def _replay(self, key: RequestKey) -> File | None:
        async with self._deps.db.read(key.team) as tx:
            kept = await request_keys.find_same(tx, tables.idempotency_keys, key)
            if kept is None:
                return None
            file = await files.find(tx, key.team, kept.resource_id)
        if file is None:
            raise NotFoundError("file")
        return file

    async def _store(
        self, key: RequestKey, upload: Upload, inspected: Inspected, reservation: Reservation
    ) -> File:
        async def write(tx: Tx, blob_key: str) -> File:
            file = await files.add(
                tx,
                NewFile(
                    key.team, FileKind.UPLOAD, upload.filename, blob_key, content_of(inspected)
                ),
            )
            assert file is not None  # its blob key is new, and it has no slot
            await settle(tx, self._deps, reservation, file.content.size_bytes)
            if key.request_id and not await request_keys.claim(
                tx, tables.idempotency_keys, key, file.id
            ):
                raise _KeyTakenError
            return file

        try:
            return await store(self._deps, key.team, FileKind.UPLOAD, inspected, write)
        except _KeyTakenError:
            replayed = await self._replay(key)
            if replayed is None:  # so old that it was forgotten in between
                raise AbortedError("the upload met another one", retry_after_seconds=0.1) from None
            return replayed
