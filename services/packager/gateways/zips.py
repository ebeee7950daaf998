"""Writes zips to the blob store: bytes go from blob to blob, a few chunks in memory.

One thread per zip reads, checks and writes; a second one hashes the piece before, so that hashing
costs no time where there is a core for it. On the embedded store the thread reads the images'
files itself; on S3 it is fed by the event loop, which reads ahead.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

from isal import isal_zlib

from libs.common import blobs_disk as disk
from libs.common.blobs import BlobUrls
from libs.common.blobs_keys import bad_url, is_key
from libs.common.crash import CrashPoints
from services.packager.gateways.handover import Handover
from services.packager.zipstream import COALESCE_BYTES, Piece, stream_sync
from services.packager.zipwork import ZipWork

READ_BYTES = 1024 * 1024  # of a local file at a time

Opener = Callable[[int], Iterable[Piece]]


class ZipWriter:
    """The blob store as a place for zips.

    Args:
        blobs: reads and writes by blob_url; not owned.
        local_root: the store's folder where it is embedded: its files are read directly.
        zips_at_once: how many `write` may run together; each gets a thread to hash in.
        crash: P2, once per entry.
    """

    def __init__(
        self, blobs: BlobUrls, *, local_root: Path | None, zips_at_once: int, crash: CrashPoints
    ) -> None:
        self._blobs = blobs
        self._root = disk.real_root(local_root) if local_root else None
        self._hashers = ThreadPoolExecutor(zips_at_once, thread_name_prefix="zip-hash")
        self._crash = crash

    async def close(self) -> None:
        """Ends the threads."""
        await asyncio.to_thread(self._hashers.shutdown, wait=True)

    async def write(
        self,
        write_url: str,
        work: ZipWork,
        *,
        fresh_url: Callable[[int], Awaitable[str]] | None = None,
        on_entry: Callable[[int], None] | None = None,
    ) -> tuple[str, int]:
        """Writes the zip whole or not at all; its SHA-256 (hex) and CRC-32.

        Args:
            write_url: where to; a secret.
            work: what.
            fresh_url: the blob_url of entry n when its turn comes, where that of `work` may run
                out before; asked in order. Not asked on the embedded store, whose URLs last.
            on_entry: told, in a thread, when entry n begins: those before it are in the zip.
        """
        begun = on_entry or (lambda _: None)
        if self._root is not None:
            root = self._root
            return await self._write(write_url, work, lambda url: _local(root, url), begun)
        fresh = fresh_url or _as_planned(work)
        images = [n for n, content in enumerate(work.contents) if isinstance(content, str)]
        handover = Handover()
        fault: Exception | None = None
        async with asyncio.TaskGroup() as group:
            filling = group.create_task(handover.fill(self._read(fresh, n) for n in images))
            try:
                sums = await self._write(write_url, work, lambda _: handover.source(), begun)
            except Exception as error:  # noqa: BLE001 - raised below, not as a group
                fault = error
            finally:
                handover.close()
                filling.cancel()
        if fault is not None:
            raise fault
        return sums

    async def _write(
        self,
        write_url: str,
        work: ZipWork,
        read: Callable[[str], Iterable[Piece]],
        begun: Callable[[int], None],
    ) -> tuple[str, int]:
        sums = _Sums(self._hashers)

        def open_entry(index: int) -> Iterable[Piece]:
            self._crash.here("P2")
            begun(index)
            content = work.contents[index]
            return read(content) if isinstance(content, str) else (content,)

        pieces = sums.through(stream_sync(work.plan, open_entry))
        await self._blobs.write(write_url, work.plan.size, pieces)
        return sums.sha256, sums.crc32

    async def _read(
        self, fresh_url: Callable[[int], Awaitable[str]], position: int
    ) -> AsyncGenerator[bytes, None]:
        url = await fresh_url(position)
        async with aclosing(self._blobs.read(url)) as source:  # type: ignore[type-var]  # an AsyncGenerator in both forms
            async for chunk in source:
                yield chunk


def _as_planned(work: ZipWork) -> Callable[[int], Awaitable[str]]:
    async def url(position: int) -> str:
        content = work.contents[position]
        assert isinstance(content, str)  # asked for images alone
        return content

    return url


class _Sums:
    """Hashes pieces as they pass, each while its successor is read and it is written itself."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._digest = hashlib.sha256()
        self.crc32 = 0

    @property
    def sha256(self) -> str:
        """Of all that passed, hex."""
        return self._digest.hexdigest()

    def through(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The same pieces."""
        before: Future[None] | None = None
        for piece in pieces:
            if before is not None:
                before.result()
                before = None
            if len(piece) < COALESCE_BYTES:
                self._add(piece)
            else:
                before = self._threads.submit(self._add, piece)
            yield piece
        if before is not None:
            before.result()

    def _add(self, piece: Piece) -> None:
        self._digest.update(piece)
        self.crc32 = isal_zlib.crc32(piece, self.crc32)


def _local(root: Path, url: str) -> Iterator[bytes]:
    """The bytes of a blob of the embedded store, read here and now."""
    prefix = f"{root.as_uri()}/"
    key = url[len(prefix) :]
    if not url.startswith(prefix) or not is_key(key):
        raise bad_url()
    with disk.typed_errors():
        reader = disk.DiskReader(root, key, READ_BYTES)
        try:
            while chunk := reader.read():
                yield chunk
        finally:
            reader.close()
