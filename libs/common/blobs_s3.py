"""The production blob store: any S3, on the minio SDK with our own connections and retries.

The SDK signs and parses. Bytes go through presigned URLs of our own making, as for every other
service: one PUT per blob, streamed, so that memory stays constant, a blob is visible whole or not
at all, and no half-finished multipart upload can be left behind. A blob is at most 5 GiB.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from libs.common import blobs_wire as wire
from libs.common.blobs import BlobStat
from libs.common.blobs_disk import file_parts
from libs.common.blobs_keys import check_key, check_prefix
from libs.common.blobs_presign import PutSigner
from libs.common.blobs_threads import BlobThreads, allowance, chunks
from libs.common.clock import Clock
from libs.common.crash import CrashPoints
from libs.common.errors import AlreadyExistsError, FailedPreconditionError
from libs.common.ids import Ids

T = TypeVar("T")

READ_URL_LIFE = timedelta(minutes=15)
WRITE_URL_LIFE = timedelta(hours=1)
MAX_FILENAME_CHARS = 150
DELETE_BATCH = 1000  # the protocol's limit
_HTTP_BAD_GATEWAY = 502
_HTTP_PRECONDITION_FAILED = 412
_HTTP_NOT_IMPLEMENTED = 501


class S3BlobStore:
    """A BlobStore in one bucket.

    Keys never change their content: a second put of the same bytes is fine, of other bytes
    AlreadyExistsError (where the server knows `If-None-Match`).
    """

    def __init__(
        self,
        *,
        endpoint: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        clock: Clock,
        ids: Ids,
        region: str = "us-east-1",
        public_endpoint: str = "",
        create_bucket: bool = False,
        threads: int = 16,
        deadline_seconds: float = 30.0,
        read_seconds: float = wire.READ_SECONDS,
        list_page: int = 1000,
        crash: CrashPoints | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            endpoint: `http://host:port` or `https://host`, as the services reach it.
            bucket: its name.
            access_key: of an account that may read, write, list and delete in the bucket.
            secret_key: of the same account.
            clock: dates signatures; waits between tries.
            ids: jitter.
            region: of the bucket; signatures name it.
            public_endpoint: as browsers reach it; empty takes `endpoint`.
            create_bucket: whether `start` makes a missing bucket.
            threads: how many requests run at a time; also the size of the connection pool.
            deadline_seconds: for one call with its retries; writes get more with their size.
            read_seconds: the longest silence of the store within a request.
            list_page: blobs per listing request, at most 1000.
            crash: A2 is here.
        """
        self._bucket = bucket
        self._create_bucket = create_bucket
        self._clock = clock
        self._ids = ids
        self._deadline = deadline_seconds
        self._read_seconds = read_seconds
        self._list_page = list_page
        self._crash = crash or CrashPoints("")
        self._threads = BlobThreads("blobs-s3", threads)
        self._pool = wire.open_pool(threads, read_seconds=read_seconds)
        self._if_none_match = True  # until the server says that it does not know it

        def client(url: str) -> Minio:
            parts = urlsplit(url)
            return Minio(
                parts.netloc,
                access_key=access_key,
                secret_key=secret_key,
                secure=parts.scheme == "https",
                region=region,
                http_client=self._pool,
            )

        self._client = client(endpoint)
        self._public = client(public_endpoint or endpoint)  # only signs; never connects
        self._puts = PutSigner(public_endpoint or endpoint, bucket, region, access_key, secret_key)

    async def start(self) -> None:
        """Checks the bucket, or makes it; FailedPreconditionError `BUCKET_MISSING`."""
        if await self._sdk(lambda: self._client.bucket_exists(self._bucket)):
            return
        if not self._create_bucket:
            raise FailedPreconditionError(
                "The bucket of the blob store does not exist.", reason="BUCKET_MISSING"
            )
        await self._sdk(self._make_bucket)

    async def close(self) -> None:
        """Closes the connections and ends the threads; waits for the requests under way."""
        await self._threads.close()
        self._pool.clear()

    async def ping(self) -> None:
        """UnavailableError when the store or the bucket is away."""
        if not await self._sdk(lambda: self._client.bucket_exists(self._bucket)):
            raise wire.fault_of(404, "NoSuchBucket").error

    async def put(self, key: str, parts: Sequence[bytes | memoryview], content_type: str) -> None:
        """Stores the concatenated parts; durable when it returns."""
        size = sum(memoryview(part).nbytes for part in parts)
        await self._store(check_key(key), lambda: parts, size, content_type)

    async def put_file(self, key: str, path: Path, content_type: str) -> None:
        """Stores a local file's content in constant memory; the file stays."""
        check_key(key)
        size = await self._threads.run(lambda: path.stat().st_size)
        await self._store(key, lambda: file_parts(path), size, content_type)

    def read(self, key: str) -> AsyncIterator[bytes]:
        """The blob in chunks; NotFoundError before the first."""

        async def open_reader() -> wire.WireReader:
            return await self._tries(
                lambda: wire.WireReader(self._pool, self.read_url(key)), undo=wire.WireReader.close
            )

        return chunks(self._threads, open_reader, self._read_seconds + 1)

    async def stat(self, key: str) -> BlobStat | None:
        """Size and time, or None."""
        check_key(key)
        return await self._sdk(lambda: self._stat(key))

    async def delete(self, keys: Sequence[str]) -> None:
        """Removes blobs; missing ones are fine."""
        for key in keys:
            check_key(key)
        for start in range(0, len(keys), DELETE_BATCH):
            batch = keys[start : start + DELETE_BATCH]
            await self._sdk(partial(self._delete, batch))

    async def list(self, prefix: str) -> AsyncIterator[BlobStat]:
        """All blobs whose key starts with prefix, a page at a time."""
        check_prefix(prefix)
        after = ""
        while page := await self._sdk(partial(self._page, prefix, after)):
            for blob in page:
                yield blob
            after = page[-1].key

    def read_url(self, key: str) -> str:
        """A presigned GET for READ_URL_LIFE."""
        return self._presign(self._client, "GET", key, READ_URL_LIFE)

    def write_url(self, key: str) -> str:
        """A presigned PUT for WRITE_URL_LIFE."""
        return self._presign(self._client, "PUT", key, WRITE_URL_LIFE)

    def public_read_url(self, key: str, filename: str, ttl_seconds: int) -> str | None:
        """A presigned GET at the public endpoint; a browser saves it under filename."""
        life = timedelta(seconds=ttl_seconds)
        return self._presign(self._public, "GET", key, life, attachment(filename))

    def public_write_url(self, key: str, size_bytes: int, ttl_seconds: int) -> str | None:
        """A presigned PUT of exactly so many bytes at the public endpoint."""
        return self._puts.url(
            check_key(key), size_bytes, at=self._clock.now(), life_seconds=ttl_seconds
        )

    def _presign(
        self, client: Minio, method: str, key: str, life: timedelta, disposition: str = ""
    ) -> str:
        return str(
            client.get_presigned_url(
                method,
                self._bucket,
                check_key(key),
                expires=life,
                request_date=self._clock.now(),
                response_headers=(
                    {"response-content-disposition": disposition} if disposition else None
                ),
            )
        )

    async def _store(
        self,
        key: str,
        parts: Callable[[], Iterable[bytes | memoryview]],
        size: int,
        content_type: str,
    ) -> None:
        stop = threading.Event()
        md5 = ""
        landed = False  # whether an earlier try may have stored it

        def one_try() -> None:
            nonlocal landed
            if landed and self._holds(key, size, md5):
                return
            landed = True
            headers = {"Content-Type": content_type, "Content-MD5": _base64(md5)}
            if self._if_none_match:
                headers["If-None-Match"] = "*"
            body = wire.Body(self._crash.in_the_middle("A2", parts()), size, stop)
            try:
                wire.put_from_source(self._pool, self.write_url(key), body, size, headers)
            except wire.StorageFaultError as fault:
                if fault.status == _HTTP_NOT_IMPLEMENTED and self._if_none_match:
                    self._if_none_match = False
                    fault.retry = True
                if fault.status != _HTTP_PRECONDITION_FAILED:
                    raise
                if not self._holds(key, size, md5):
                    message = "The blob has other bytes."
                    raise AlreadyExistsError(message, reason="BLOB_EXISTS") from fault

        try:
            md5 = await self._threads.run(lambda: _md5(parts(), stop))
            await self._tries(one_try, seconds=allowance(self._deadline, size))
        finally:
            stop.set()

    def _holds(self, key: str, size: int, md5: str) -> bool:
        # Read back rather than trust the ETag, which is no MD5 on every server; this is rare.
        with _sdk_faults():
            held = self._stat(key)
        if held is None or held.size != size:
            return False
        reader = wire.WireReader(self._pool, self.read_url(key))
        try:
            return _md5(iter(reader.read, b""), threading.Event()) == md5
        finally:
            reader.close()

    def _stat(self, key: str) -> BlobStat | None:
        try:
            found = self._client.stat_object(self._bucket, key)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise
        assert found.last_modified is not None
        return BlobStat(key, found.size or 0, found.last_modified)

    def _delete(self, keys: Sequence[str]) -> None:
        failed = self._client.remove_objects(self._bucket, [DeleteObject(key) for key in keys])
        codes = {error.code for error in failed} - {"NoSuchKey"}
        if codes:
            raise wire.fault_of(_HTTP_BAD_GATEWAY, "")

    def _page(self, prefix: str, after: str) -> Sequence[BlobStat]:
        found = self._client.list_objects(
            self._bucket, prefix=prefix, recursive=True, start_after=after or None
        )
        return [
            BlobStat(item.object_name, item.size, item.last_modified)
            for item in islice(found, self._list_page)
        ]

    def _make_bucket(self) -> None:
        try:
            self._client.make_bucket(self._bucket)
        except S3Error as error:
            if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    async def _sdk(self, work: Callable[[], T]) -> T:
        def typed() -> T:
            with _sdk_faults():
                return work()

        return await self._tries(typed)

    async def _tries(
        self,
        work: Callable[[], T],
        *,
        undo: Callable[[T], None] | None = None,
        seconds: float | None = None,
    ) -> T:
        return await wire.with_tries(
            lambda: self._threads.run(work, undo),
            clock=self._clock,
            ids=self._ids,
            seconds=seconds or self._deadline,
        )


@contextmanager
def _sdk_faults() -> Iterator[None]:
    """Turns the SDK's errors into StorageFaultError."""
    try:
        with wire.typed_faults():
            yield
    except S3Error as error:
        raise wire.fault_of(error.response.status, error.code or "") from error
    except ServerError as error:
        raise wire.fault_of(error.status_code, "") from error
    except InvalidResponseError as error:  # not XML: a proxy in between
        raise wire.fault_of(getattr(error, "_code", _HTTP_BAD_GATEWAY), "") from error
    except (MinioException, ParseError) as error:
        raise wire.no_answer() from error


def attachment(filename: str) -> str:
    """A Content-Disposition that saves under filename, whatever is in it (RFC 6266)."""
    name = "".join(char for char in filename if char.isprintable() and char not in '/\\"')
    name = name.strip(" .")[:MAX_FILENAME_CHARS] or "download"
    plain = "".join(char if char.isascii() and char not in "%;" else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _md5(parts: Iterable[bytes | memoryview], stop: threading.Event) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        if stop.is_set():
            raise wire.AbandonedError
        digest.update(part)
    return digest.hexdigest()


def _base64(md5: str) -> str:
    return base64.b64encode(bytes.fromhex(md5)).decode("ascii")
