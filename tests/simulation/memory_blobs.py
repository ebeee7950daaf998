"""The blob store, played: bytes in memory, that outlive every node.

A write takes a while, and whoever dies in it leaves a whole blob or none, as the real stores do.
Now and then the store is away: before it did what it was asked, or after.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from random import Random

from isal import isal_zlib

from libs.common.blobs import BlobStat
from libs.common.blobs_keys import check_key, check_prefix
from libs.common.clock import Clock
from libs.common.errors import (
    AlreadyExistsError,
    DataLossError,
    NotFoundError,
    UnavailableError,
)
from services.packager.zipstream import Piece, stream
from services.packager.zipwork import ZipWork

SLOWEST_SECONDS = 0.2
AWAY = 0.01
SCHEME = "sim:///"


class MemoryBlobs:
    """A BlobStore, and the BlobUrls of the same store.

    Attributes:
        kept: bytes and facts by key.
        faulty: it is away now and then.
    """

    def __init__(self, random: Random, clock: Clock) -> None:
        self._random = random
        self._clock = clock
        self.kept: dict[str, tuple[bytes, BlobStat]] = {}
        self.faulty = True

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to close."""

    async def ping(self) -> None:
        """Always there."""

    async def put(self, key: str, parts: Sequence[bytes | memoryview], content_type: str) -> None:
        """Whole, or not at all."""
        del content_type
        data = b"".join(parts)
        await self._way()
        if key in self.kept and self.kept[key][0] != data:
            raise AlreadyExistsError("The blob has other bytes.", reason="BLOB_EXISTS")
        self._keep(check_key(key), data)
        await self._way()

    async def put_file(self, key: str, path: Path, content_type: str) -> None:
        """Nobody does."""
        raise NotImplementedError(key, path, content_type)

    async def stat(self, key: str) -> BlobStat | None:
        """Its facts."""
        await self._way()
        return self.kept[key][1] if key in self.kept else None

    async def delete(self, keys: Sequence[str]) -> None:
        """One after the other, and not all where somebody dies in between."""
        for key in keys:
            await self._way()
            self.kept.pop(check_key(key), None)
        await self._way()

    async def list(self, prefix: str) -> AsyncGenerator[BlobStat, None]:
        """What is there; what comes and goes meanwhile may be missing."""
        await self._way()
        for key in sorted(self.kept):
            if key.startswith(check_prefix(prefix)) and key in self.kept:
                yield self.kept[key][1]

    def read_url(self, key: str) -> str:
        """By its key."""
        return f"{SCHEME}{key}"

    write_url = read_url

    def public_read_url(self, key: str, filename: str, ttl_seconds: int) -> str | None:
        """None."""
        del key, filename, ttl_seconds
        return None

    def public_write_url(self, key: str, size_bytes: int, ttl_seconds: int) -> str | None:
        """None."""
        del key, size_bytes, ttl_seconds
        return None

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        """By key or URL, in two chunks; NotFoundError."""
        key = key.removeprefix(SCHEME)
        await self._way()
        if key not in self.kept:
            raise NotFoundError("blob")
        data = self.kept[key][0]
        yield data[: len(data) // 2]
        await self._way()
        yield data[len(data) // 2 :]

    async def read_all(self, url: str, max_bytes: int) -> bytes:
        """The whole."""
        data = b"".join([chunk async for chunk in self.read(url)])
        if len(data) > max_bytes:
            raise DataLossError("larger than it should be")
        return data

    async def write(self, url: str, size: int, parts: Iterable[bytes | memoryview]) -> None:
        """Whole, or not at all; what was there is replaced."""
        data = b"".join(parts)
        if len(data) != size:
            raise DataLossError("not as many bytes as announced")
        await self._way()
        self._keep(check_key(url.removeprefix(SCHEME)), data)
        await self._way()

    def _keep(self, key: str, data: bytes) -> None:
        self.kept[key] = (data, BlobStat(key, len(data), self._clock.now()))

    async def _way(self) -> None:
        await asyncio.sleep(self._random.uniform(0, SLOWEST_SECONDS))
        if self.faulty and self._random.random() < AWAY:
            raise UnavailableError("the store is away")


class MemoryZips:
    """The packager's way to write zips, without its threads: one entry after the other."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs

    async def write(
        self,
        write_url: str,
        work: ZipWork,
        *,
        fresh_url: Callable[[int], Awaitable[str]],
        on_entry: Callable[[int], None],
    ) -> tuple[str, int]:
        """The zip's SHA-256 and CRC-32."""

        async def entry(index: int) -> AsyncGenerator[Piece, None]:
            on_entry(index)
            content = work.contents[index]
            if isinstance(content, bytes):
                yield content
                return
            async for chunk in self._blobs.read(await fresh_url(index)):
                yield chunk

        data = b"".join([bytes(piece) async for piece in stream(work.plan, entry)])
        await self._blobs.write(write_url, work.plan.size, [data])
        return hashlib.sha256(data).hexdigest(), isal_zlib.crc32(data)
