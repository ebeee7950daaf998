"""The embedded blob store: one folder, one file per blob."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from libs.common import blobs_disk as disk
from libs.common.blobs import BlobStat
from libs.common.blobs_keys import check_key, check_prefix
from libs.common.blobs_threads import BlobThreads, allowance, chunks, deadline
from libs.common.crash import CrashPoints
from libs.common.errors import AlreadyExistsError, UnavailableError
from libs.common.ids import Ids

T = TypeVar("T")

LIST_PAGE = 1000


class FileBlobStore:
    """A BlobStore in a folder of a local disk.

    A put is a temporary file in `root/.tmp`, fsync, rename, fsync of the folder: after a crash a
    blob is there whole or not at all. Keys never change their content: a second put of the same
    bytes is fine, of other bytes AlreadyExistsError.
    """

    def __init__(
        self,
        root: Path,
        ids: Ids,
        *,
        threads: int = 4,
        deadline_seconds: float = 30.0,
        crash: CrashPoints | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            root: the folder; made by `start`.
            ids: names temporary files.
            threads: how many blocking calls run at a time.
            deadline_seconds: for one call; writes get more with their size.
            crash: A2 is here.
        """
        self._root = disk.real_root(root)
        self._ids = ids
        self._deadline = deadline_seconds
        self._crash = crash or CrashPoints("")
        self._threads = BlobThreads("blobs", threads)

    async def start(self) -> None:
        """Makes the folder and removes the temporary files of dead writers."""
        await self._run(lambda: disk.prepare(self._root))

    async def close(self) -> None:
        """Ends the threads."""
        await self._threads.close()

    async def ping(self) -> None:
        """UnavailableError when the folder is gone or may not be written."""
        await self._run(self._check_folder)

    async def put(self, key: str, parts: Sequence[bytes | memoryview], content_type: str) -> None:
        """Stores the concatenated parts; durable when it returns."""
        del content_type  # assets keeps it; a disk has no place for it
        size = sum(memoryview(part).nbytes for part in parts)
        await self._store(check_key(key), lambda: parts, size)

    async def put_file(self, key: str, path: Path, content_type: str) -> None:
        """Stores a local file's content; the file stays."""
        del content_type
        check_key(key)
        size = await self._run(lambda: path.stat().st_size)
        await self._store(key, lambda: disk.file_parts(path), size)

    def read(self, key: str) -> AsyncIterator[bytes]:
        """The blob in chunks; NotFoundError before the first."""

        async def open_reader() -> disk.DiskReader:
            return await self._run(
                lambda: disk.DiskReader(self._root, check_key(key)), undo=disk.DiskReader.close
            )

        return chunks(self._threads, open_reader, self._deadline)

    async def stat(self, key: str) -> BlobStat | None:
        """Size and time, or None."""
        return await self._run(lambda: disk.stat_blob(self._root, check_key(key)))

    async def delete(self, keys: Sequence[str]) -> None:
        """Removes blobs; missing ones are fine."""
        for key in keys:
            check_key(key)
        for key in keys:
            await self._run(partial(disk.delete_blob, self._root, key))

    async def list(self, prefix: str) -> AsyncIterator[BlobStat]:
        """All blobs whose key starts with prefix, a page at a time off the loop."""
        found = disk.scan(self._root, check_prefix(prefix))
        while page := await self._run(lambda: list(islice(found, LIST_PAGE))):
            for blob in page:
                yield blob

    def read_url(self, key: str) -> str:
        """A file:// URL below the root."""
        return f"{self._root.as_uri()}/{check_key(key)}"

    def write_url(self, key: str) -> str:
        """A file:// URL below the root."""
        return self.read_url(key)

    def public_read_url(self, key: str, filename: str, ttl_seconds: int) -> str | None:
        """None: a browser cannot reach this disk."""
        del key, filename, ttl_seconds
        return None

    def public_write_url(self, key: str, size_bytes: int, ttl_seconds: int) -> str | None:
        """None: a browser cannot reach this disk."""
        del key, size_bytes, ttl_seconds
        return None

    async def _store(
        self, key: str, parts: Callable[[], Iterable[bytes | memoryview]], size: int
    ) -> None:
        stop = threading.Event()

        def work() -> None:
            if (held := disk.stat_blob(self._root, key)) is not None:
                if held.size == size and disk.same_content(self._root, key, parts()):
                    return
                raise AlreadyExistsError("The blob has other bytes.", reason="BLOB_EXISTS")
            written = self._crash.in_the_middle("A2", parts())
            disk.write_whole(self._root, key, written, size=size, token=self._ids.token, stop=stop)

        try:
            await self._run(work, seconds=allowance(self._deadline, size))
        finally:
            stop.set()

    async def _run(
        self,
        work: Callable[[], T],
        *,
        undo: Callable[[T], None] | None = None,
        seconds: float | None = None,
    ) -> T:
        def typed() -> T:
            with disk.typed_errors():
                return work()

        async with deadline(seconds or self._deadline):
            return await self._threads.run(typed, undo)

    def _check_folder(self) -> None:
        if not os.access(self._root / disk.TEMP_FOLDER, os.W_OK | os.X_OK):
            raise UnavailableError("The blob store cannot be used now.")
