"""S3 on the wire: our own urllib3 pool, one try per call, and what each failure means.

Blocking; run it in a thread. Retries are `with_tries`, on the loop: a waiting retry holds no
thread. Redirects are never followed.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from libs.common.backoff import Backoff
from libs.common.blobs import CHUNK_BYTES
from libs.common.blobs_threads import deadline
from libs.common.clock import Clock
from libs.common.errors import (
    ContentshopError,
    InternalError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from libs.common.ids import Ids

T = TypeVar("T")

CONNECT_SECONDS = 2.0
READ_SECONDS = 15.0
SEND_SECONDS = 15.0  # for one block of SEND_BLOCK_BYTES
SEND_BLOCK_BYTES = 256 * 1024
TRIES = 3
BACKOFF = Backoff(first_seconds=0.2, max_seconds=2.0)
ERROR_BODY_BYTES = 16 * 1024

_HTTP_OK = range(200, 300)
_HTTP_NOT_FOUND = 404
_HTTP_SERVER_ERROR = 500
_HTTP_NOT_IMPLEMENTED = 501
_HTTP_STORAGE_FULL = 507
_RETRIED_STATUS = {408, 409, 425, 429}
_RETRIED_CODES = {"BadDigest", "RequestTimeout", "SlowDown", "InternalError", "IncompleteBody"}
_FULL_CODES = {"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")


class StorageFaultError(Exception):
    """One try failed.

    Attributes:
        error: what the caller is told in the end.
        retry: whether the same call may succeed soon.
        status: of the answer; 0 without one.
    """

    def __init__(self, error: ContentshopError, *, retry: bool, status: int = 0) -> None:
        super().__init__(error.reason)
        self.error = error
        self.retry = retry
        self.status = status


class SourceError(Exception):
    """The parts of a body failed, not the store; `source` is their own error."""

    def __init__(self, source: Exception) -> None:
        super().__init__()
        self.source = source


class AbandonedError(Exception):
    """The caller has gone; nobody reads this."""


def no_answer() -> StorageFaultError:
    """The store was not reached, or the connection broke."""
    return StorageFaultError(UnavailableError("The blob store cannot be reached."), retry=True)


def fault_of(status: int, code: str) -> StorageFaultError:
    """What an answer other than success means."""
    if status == _HTTP_NOT_FOUND and code in {"", "NoSuchKey"}:
        return StorageFaultError(NotFoundError("blob"), retry=False, status=status)
    if status == _HTTP_STORAGE_FULL or code in _FULL_CODES:
        full = ResourceExhaustedError(
            "The blob store has no room.", reason="STORAGE_FULL", quota_subject="storage"
        )
        return StorageFaultError(full, retry=False, status=status)
    server = status >= _HTTP_SERVER_ERROR and status != _HTTP_NOT_IMPLEMENTED
    if server or status in _RETRIED_STATUS or code in _RETRIED_CODES:
        return StorageFaultError(
            UnavailableError("The blob store is overloaded or failing."), retry=True, status=status
        )
    # A redirect, a wrong or expired signature, a missing bucket: for an operator or a new URL.
    refused = UnavailableError("The blob store refused the request.", reason="STORAGE_REFUSED")
    return StorageFaultError(refused, retry=False, status=status)


@contextmanager
def typed_faults() -> Iterator[None]:
    """Turns urllib3's errors into StorageFaultError."""
    try:
        yield
    except (HTTPError, OSError) as error:
        raise no_answer() from error


async def with_tries(
    work: Callable[[], Awaitable[T]], *, clock: Clock, ids: Ids, seconds: float
) -> T:
    """The result of an idempotent call: at most TRIES, full jitter between, one deadline in all."""
    async with deadline(seconds):
        for failures in range(1, TRIES + 1):
            try:
                return await work()
            except StorageFaultError as fault:
                if not fault.retry or failures == TRIES:
                    raise fault.error from fault
            await clock.sleep(ids.uniform(0.0, BACKOFF.ceiling(failures)))
    raise AssertionError  # the last try returns or raises


def _send_timeout(connection: HTTPConnection) -> None:
    # urllib3 leaves the connect timeout on the socket while it sends, and `sendall` takes it for
    # the whole block: 2 s would be too short for a store that is only busy.
    if connection.sock is not None:
        connection.sock.settimeout(SEND_SECONDS)


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _send_timeout(self)


class _TlsConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _send_timeout(self)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def open_pool(
    connections: int,
    *,
    connect_seconds: float = CONNECT_SECONDS,
    read_seconds: float = READ_SECONDS,
) -> urllib3.PoolManager:
    """A pool that never retries and never follows a redirect; TLS is verified."""
    pool = urllib3.PoolManager(
        num_pools=4,
        maxsize=connections,
        timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
        retries=False,
    )
    pool.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return pool


class Body(Iterable[bytes]):
    """The body of a PUT, from parts: counts and hashes, and breaks off when the caller has gone.

    Attributes:
        started: whether a part has been taken, so that the parts cannot be sent again.
        md5: of what was sent.
    """

    def __init__(
        self, parts: Iterable[bytes | memoryview], size: int, stop: threading.Event
    ) -> None:
        self._parts = parts
        self._size = size
        self._stop = stop
        self.started = False
        self.md5 = hashlib.md5(usedforsecurity=False)

    def __iter__(self) -> Iterator[bytes]:
        """Blocks of at most SEND_BLOCK_BYTES."""
        left = self._size
        for part in self._taken():
            view = memoryview(part).cast("B")
            left -= len(view)
            if left < 0:
                break
            for start in range(0, len(view), SEND_BLOCK_BYTES):
                if self._stop.is_set():
                    raise AbandonedError
                block = view[start : start + SEND_BLOCK_BYTES]
                self.md5.update(block)
                yield cast("bytes", block)  # the socket takes a view as well, without a copy
        if left:  # the connection is closed in the middle, and the store forgets what it has
            mismatch = "A blob had another size than announced."
            raise SourceError(InternalError(mismatch, reason="BLOB_SIZE"))

    def _taken(self) -> Iterator[bytes | memoryview]:
        self.started = True
        try:
            yield from self._parts
        except Exception as error:
            raise SourceError(error) from error  # urllib3 would take an OSError for the network's


def put(
    pool: urllib3.PoolManager, url: str, body: Body, size: int, headers: Mapping[str, str]
) -> Mapping[str, str]:
    """One PUT to a presigned URL; the answer's headers. An early answer of the store counts."""
    sent = {**headers, "Content-Length": str(size)}
    with typed_faults():
        response = pool.request("PUT", url, body=body, headers=sent, redirect=False)
    if response.status not in _HTTP_OK:
        raise fault_of(response.status, _code(response.data))
    return response.headers


def put_from_source(
    pool: urllib3.PoolManager, url: str, body: Body, size: int, headers: Mapping[str, str]
) -> Mapping[str, str]:
    """As `put`; an error of the parts themselves is raised as it was."""
    try:
        return put(pool, url, body, size, headers)
    except SourceError as error:
        raise error.source from None


def etag_contradicts(headers: Mapping[str, str], md5: str) -> bool:
    """Whether the store says that it holds other bytes than those with this MD5.

    An ETag is the MD5 of a single PUT, except under server-side encryption with own keys.
    """
    etag = headers.get("etag", "").strip('"').lower()
    encrypted = any(name.lower().startswith("x-amz-server-side-encryption") for name in headers)
    return not encrypted and re.fullmatch(r"[0-9a-f]{32}", etag) is not None and etag != md5


class WireReader:
    """An open GET, read in a thread."""

    def __init__(self, pool: urllib3.PoolManager, url: str) -> None:
        """Sends the request; StorageFaultError unless the store answers with the blob."""
        with typed_faults():
            self._response: Any = pool.request(
                "GET",
                url,
                headers={"Accept-Encoding": "identity"},
                preload_content=False,
                decode_content=False,
                redirect=False,
            )
        self._lock = threading.Lock()
        if self._response.status not in _HTTP_OK:
            code = ""
            with suppress(HTTPError, OSError):
                code = _code(self._response.read(ERROR_BODY_BYTES))
            self.close()
            raise fault_of(self._response.status, code)
        length = self._response.headers.get("content-length", "")
        self._left = int(length) if length.isascii() and length.isdigit() else None

    def read(self) -> bytes:
        """The next chunk; empty at the end. Fewer bytes than announced is UnavailableError."""
        with self._lock:
            try:
                chunk: bytes = self._response.read(CHUNK_BYTES)
            except (HTTPError, OSError) as error:
                raise _cut() from error
        if self._left is None:
            return chunk
        self._left -= len(chunk)
        if self._left < 0 or (not chunk and self._left):
            raise _cut()
        return chunk

    def interrupt(self) -> None:
        """Ends a read that is under way; never blocks."""
        with suppress(ValueError, RuntimeError, OSError):  # read to its end, or closed
            self._response.shutdown()

    def close(self) -> None:
        """Gives the connection back to the pool, closed unless the blob was read to its end."""
        with self._lock:
            self._response.close()
            self._response.release_conn()


def _cut() -> UnavailableError:
    return UnavailableError("A blob ended too early.", reason="SHORT_READ")


def _code(body: bytes) -> str:
    found = _CODE.search(body[:ERROR_BODY_BYTES])
    return found.group(1).decode("ascii") if found else ""
