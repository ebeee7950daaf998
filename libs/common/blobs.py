"""Where bytes live: the blob store and blob URLs, behind one Protocol each.

assets owns a `BlobStore`. The worker and the packager own only `BlobUrls`: they read and write
blobs by the URL assets gives them, so bytes do not pass through services.
Implementations: `libs.common.blobs_file`, `libs.common.blobs_s3`; chosen by `open_blob_store`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class BlobStat:
    """A stored blob: key, size in bytes, when it was last written (aware UTC)."""

    key: str
    size: int
    modified: datetime


class BlobStore(Protocol):
    """Immutable blobs by key. A blob is either wholly visible or not at all.

    All methods raise UnavailableError when the store is away or slow, ResourceExhaustedError
    (`STORAGE_FULL`) when it has no room, and never leave temporary data behind after an error.
    Keys are made by us: `[a-z0-9/_.-]`, no `..`, no leading slash.
    """

    async def start(self) -> None:
        """Make the folder or check the bucket; clear stale temporary files of dead writers."""
        ...

    async def close(self) -> None:
        """Give connections and threads back."""
        ...

    async def ping(self) -> None:
        """A cheap reachability check for readiness; raises UnavailableError."""
        ...

    async def put(self, key: str, parts: Sequence[bytes | memoryview], content_type: str) -> None:
        """Store the concatenated parts under key; durable when it returns."""
        ...

    async def put_file(self, key: str, path: Path, content_type: str) -> None:
        """Store a local file's content under key; the file stays."""
        ...

    def read(self, key: str) -> AsyncIterator[bytes]:
        """The blob in chunks of CHUNK_BYTES; NotFoundError before the first chunk."""
        ...

    async def stat(self, key: str) -> BlobStat | None:
        """Size and time, or None when there is no such blob."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove blobs; missing ones are fine."""
        ...

    def list(self, prefix: str) -> AsyncIterator[BlobStat]:
        """All blobs whose key starts with prefix, in no promised order."""
        ...

    def read_url(self, key: str) -> str:
        """A blob_url a service can read for a few minutes."""
        ...

    def write_url(self, key: str) -> str:
        """A blob_url a service can write once, for up to an hour."""
        ...

    def public_read_url(self, key: str, filename: str, ttl_seconds: int) -> str | None:
        """A URL for browsers (presigned GET, attachment name), or None where there is none."""
        ...

    def public_write_url(self, key: str, size_bytes: int, ttl_seconds: int) -> str | None:
        """A URL to put exactly size_bytes to (presigned PUT), or None where there is none."""
        ...


class BlobUrls(Protocol):
    """Read and write by blob_url. Refuses any URL that is not of the configured store."""

    async def start(self) -> None:
        """Open pools."""
        ...

    async def close(self) -> None:
        """Give connections and threads back."""
        ...

    def read(self, url: str) -> AsyncIterator[bytes]:
        """The blob in chunks; NotFoundError, UnavailableError."""
        ...

    async def read_all(self, url: str, max_bytes: int) -> bytes:
        """The whole blob; DataLossError when it is larger than max_bytes."""
        ...

    async def write(self, url: str, size: int, parts: Iterable[bytes | memoryview]) -> None:
        """Store exactly `size` bytes, all or nothing; `parts` is iterated off the event loop."""
        ...
