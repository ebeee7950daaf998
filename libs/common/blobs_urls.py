"""Reading and writing blobs by blob_url: what the worker and the packager hold.

Both refuse every URL that is not of the configured store, before anything is opened or connected.
"""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, urlsplit

from libs.common import blobs_disk as disk
from libs.common.blobs_keys import bad_url, is_key
from libs.common.blobs_threads import BlobThreads, allowance, chunks, deadline
from libs.common.clock import Clock
from libs.common.errors import DataLossError, UnavailableError
from libs.common.ids import Ids

if TYPE_CHECKING:
    from libs.common.blobs_wire import WireReader

MAX_URL_CHARS = 4096
_PLAIN = re.compile(r"[!-~]+", re.ASCII)  # urlsplit silently drops tabs and line ends
_PORTS = {"http": 80, "https": 443}


class FileBlobUrls:
    """BlobUrls of the embedded store: file:// below one folder, no symlink followed."""

    def __init__(
        self, root: Path, ids: Ids, *, threads: int = 4, deadline_seconds: float = 30.0
    ) -> None:
        """Opens nothing yet; the arguments are those of FileBlobStore."""
        self._root = disk.real_root(root)
        self._prefix = f"{self._root.as_uri()}/"
        self._ids = ids
        self._deadline = deadline_seconds
        self._threads = BlobThreads("blob-urls", threads)

    async def start(self) -> None:
        """Makes the folder."""
        await self._threads.run(lambda: disk.prepare(self._root))

    async def close(self) -> None:
        """Ends the threads."""
        await self._threads.close()

    def read(self, url: str) -> AsyncGenerator[bytes, None]:
        """The blob in chunks; NotFoundError before the first."""

        async def open_reader() -> disk.DiskReader:
            return await self._open(self._key_of(url))

        return chunks(self._threads, open_reader, self._deadline)

    async def read_all(self, url: str, max_bytes: int) -> bytes:
        """The whole blob; DataLossError when it is larger than max_bytes."""
        return await _join(self.read(url), max_bytes)

    async def write(self, url: str, size: int, parts: Iterable[bytes | memoryview]) -> None:
        """Stores exactly size bytes, all or nothing; what the URL held is replaced in one step.

        The parts are used in a thread, one at a time, and belong to the call to its end.
        """
        key = self._key_of(url)
        stop = threading.Event()

        def work() -> None:
            with disk.typed_errors():
                disk.write_whole(
                    self._root, key, parts, size=size, token=self._ids.token, stop=stop
                )

        try:
            async with deadline(allowance(self._deadline, size)):
                await self._threads.run(work)
        finally:
            stop.set()

    def _key_of(self, url: str) -> str:
        # A key needs no escaping, so the only good URL is the prefix and a key, letter by letter.
        key = url[len(self._prefix) :]
        if not url.startswith(self._prefix) or not is_key(key):
            raise bad_url()
        return key

    async def _open(self, key: str) -> disk.DiskReader:
        def work() -> disk.DiskReader:
            with disk.typed_errors():
                return disk.DiskReader(self._root, key)

        async with deadline(self._deadline):
            return await self._threads.run(work, disk.DiskReader.close)


class S3BlobUrls:
    """BlobUrls of an S3: presigned URLs of one endpoint and one bucket; holds no credentials."""

    def __init__(
        self,
        *,
        endpoint: str,
        bucket: str,
        clock: Clock,
        ids: Ids,
        region: str = "us-east-1",
        threads: int = 16,
        deadline_seconds: float = 30.0,
        read_seconds: float = 15.0,
    ) -> None:
        """Opens nothing yet; the arguments are those of S3BlobStore, and must equal the store's."""
        # Here and not above: only a process that talks to an S3 should load its client.
        from minio.helpers import BaseURL  # noqa: PLC0415 - see above

        from libs.common import blobs_wire  # noqa: PLC0415 - see above

        self._wire = blobs_wire
        self._base: SplitResult = BaseURL(endpoint, region).build(
            method="GET", region=region, bucket_name=bucket, object_name="-"
        )
        self._clock = clock
        self._ids = ids
        self._deadline = deadline_seconds
        self._read_seconds = read_seconds
        self._threads = BlobThreads("blob-urls-s3", threads)
        self._pool = blobs_wire.open_pool(threads, read_seconds=read_seconds)

    async def start(self) -> None:
        """Nothing to open: connections are made when needed."""

    async def close(self) -> None:
        """Closes the connections and ends the threads; waits for the requests under way."""
        await self._threads.close()
        self._pool.clear()

    def read(self, url: str) -> AsyncGenerator[bytes, None]:
        """The blob in chunks; NotFoundError before the first, UnavailableError when it is cut."""

        async def open_reader() -> WireReader:
            self._check(url)
            reader: WireReader = await self._wire.with_tries(
                lambda: self._threads.run(
                    lambda: self._wire.WireReader(self._pool, url), self._wire.WireReader.close
                ),
                clock=self._clock,
                ids=self._ids,
                seconds=self._deadline,
            )
            return reader

        return chunks(self._threads, open_reader, self._read_seconds + 1)

    async def read_all(self, url: str, max_bytes: int) -> bytes:
        """The whole blob; DataLossError when it is larger than max_bytes."""
        return await _join(self.read(url), max_bytes)

    async def write(self, url: str, size: int, parts: Iterable[bytes | memoryview]) -> None:
        """Stores exactly size bytes, all or nothing; what the URL held is replaced in one step.

        The parts can be sent once only, so there is no second try after the first of them. They
        are used in a thread, one at a time, and belong to the call to its end.
        """
        self._check(url)
        stop = threading.Event()
        body = self._wire.Body(parts, size, stop)

        def one_try() -> None:
            try:
                answer = self._wire.put_from_source(self._pool, url, body, size, {})
            except self._wire.StorageFaultError as fault:
                fault.retry = fault.retry and not body.started
                raise
            if self._wire.etag_contradicts(answer, body.md5.hexdigest()):
                raise UnavailableError("The blob was damaged on its way.", reason="BLOB_DAMAGED")

        try:
            await self._wire.with_tries(
                lambda: self._threads.run(one_try),
                clock=self._clock,
                ids=self._ids,
                seconds=allowance(self._deadline, size),
            )
        finally:
            stop.set()

    def _check(self, url: str) -> None:
        if len(url) > MAX_URL_CHARS or not _PLAIN.fullmatch(url) or "#" in url:
            raise bad_url()
        try:
            parts = urlsplit(url)
            same = _origin(parts) == _origin(self._base)
            names = [name for name, _ in parse_qsl(parts.query, True, True)]  # noqa: FBT003 - kept blank, strict
        except ValueError:
            raise bad_url() from None
        folder = self._base.path.removesuffix("-")
        key = parts.path[len(folder) :]
        if (
            not same
            or "@" in parts.netloc
            or not parts.path.startswith(folder)
            or not is_key(key)
            or "X-Amz-Signature" not in names
            or not all(name.startswith("X-Amz-") for name in names)
        ):
            raise bad_url()


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


async def _join(blob: AsyncGenerator[bytes, None], max_bytes: int) -> bytes:
    whole = bytearray()
    async with aclosing(blob):
        async for chunk in blob:
            whole += chunk
            if len(whole) > max_bytes:
                raise DataLossError("A blob is larger than it may be.", reason="BLOB_TOO_LARGE")
    return bytes(whole)
