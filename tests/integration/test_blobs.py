"""One contract for both blob stores, and what each must survive."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from libs.common import blobs_disk
from libs.common.blobs import CHUNK_BYTES, BlobStore, BlobUrls
from libs.common.blobs_file import FileBlobStore
from libs.common.blobs_open import open_blob_store, open_blob_urls
from libs.common.blobs_s3 import S3BlobStore
from libs.common.blobs_urls import FileBlobUrls, S3BlobUrls
from libs.common.clock import SystemClock
from libs.common.errors import (
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from libs.common.ids import SystemIds
from tests.support.faulty_http import Fault, FaultyHttp
from tests.support.seaweed import SeaweedServer, seaweed

__all__ = ["seaweed"]  # a fixture of this module

CLOCK = SystemClock()
IDS = SystemIds()
MIB = 1024 * 1024


@dataclass(frozen=True)
class Pair:
    """A store, and what reads and writes its blob_urls."""

    store: BlobStore
    urls: BlobUrls

    def key(self, name: str = "a") -> str:
        return f"t/{IDS.token()}/{name}"


@asynccontextmanager
async def opened(store: BlobStore, urls: BlobUrls) -> AsyncIterator[Pair]:
    await store.start()
    await urls.start()
    try:
        yield Pair(store, urls)
    finally:
        await urls.close()
        await store.close()


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.real)])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    keys: dict[str, Any] = {}
    if request.param == "file":
        url = (tmp_path / "a folder").as_uri()
    else:
        server: SeaweedServer = request.getfixturevalue("seaweed")
        url = server.blob_url()
        keys = {"access_key": server.access_key, "secret_key": server.secret_key}
    store = open_blob_store(url, clock=CLOCK, ids=IDS, **keys)
    async with opened(store, open_blob_urls(url, clock=CLOCK, ids=IDS)) as both:
        yield both


def s3_store(
    server: SeaweedServer,
    endpoint: str,
    *,
    public_endpoint: str = "",
    create_bucket: bool = False,
    bucket: str | None = None,
    secret_key: str | None = None,
    deadline_seconds: float = 10.0,
    read_seconds: float = 15.0,
    list_page: int = 1000,
) -> S3BlobStore:
    return S3BlobStore(
        endpoint=endpoint,
        bucket=bucket or server.bucket,
        access_key=server.access_key,
        secret_key=secret_key or server.secret_key,
        clock=CLOCK,
        ids=IDS,
        public_endpoint=public_endpoint,
        create_bucket=create_bucket,
        deadline_seconds=deadline_seconds,
        read_seconds=read_seconds,
        list_page=list_page,
    )


@dataclass(frozen=True)
class Faulty(Pair):
    """A pair that reaches its S3 through a proxy with faults."""

    proxy: FaultyHttp


@asynccontextmanager
async def behind_proxy(
    server: SeaweedServer, deadline_seconds: float = 10.0, read_seconds: float = 15.0
) -> AsyncIterator[Faulty]:
    host, port = server.host.split(":")
    async with FaultyHttp(host, int(port)).running() as proxy:
        store = s3_store(
            server, proxy.endpoint, deadline_seconds=deadline_seconds, read_seconds=read_seconds
        )
        urls = S3BlobUrls(
            endpoint=proxy.endpoint,
            bucket=server.bucket,
            clock=CLOCK,
            ids=IDS,
            deadline_seconds=deadline_seconds,
            read_seconds=read_seconds,
        )
        async with opened(store, urls) as both:
            yield Faulty(both.store, both.urls, proxy)


@pytest.fixture
async def faulty(seaweed: SeaweedServer) -> AsyncIterator[Faulty]:
    async with behind_proxy(seaweed) as both:
        yield both


async def read_back(pair: Pair, key: str) -> bytes:
    return b"".join([chunk async for chunk in pair.store.read(key)])


def block(size: int, seed: int = 1) -> bytes:
    return bytes((hashlib.sha256(seed.to_bytes(4, "big")).digest() * (size // 32 + 1))[:size])


async def listed(store: BlobStore, prefix: str) -> dict[str, int]:
    return {blob.key: blob.size async for blob in store.list(prefix)}


# The contract.


async def test_what_was_put_is_read(pair: Pair) -> None:
    key = pair.key()
    await pair.store.put(key, [b"one", memoryview(b"-two-"), b"", b"three"], "image/png")
    assert await read_back(pair, key) == b"one-two-three"
    assert await pair.urls.read_all(pair.store.read_url(key), 100) == b"one-two-three"


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * MIB + 7])
async def test_sizes_around_a_chunk(pair: Pair, size: int) -> None:
    key, data = pair.key(), block(size)
    await pair.store.put(key, [data], "image/png")
    chunks = [chunk async for chunk in pair.urls.read(pair.store.read_url(key))]
    assert b"".join(chunks) == data
    assert all(len(chunk) == CHUNK_BYTES for chunk in chunks[:-1])
    stat = await pair.store.stat(key)
    assert stat is not None
    assert (stat.key, stat.size) == (key, size)
    assert abs(datetime.now(UTC) - stat.modified) < timedelta(minutes=1)  # noqa: TID251 - real time


async def test_put_file_leaves_the_file(pair: Pair, tmp_path: Path) -> None:
    key, source = pair.key(), tmp_path / "source"
    source.write_bytes(block(2 * MIB + 3))
    await pair.store.put_file(key, source, "image/png")
    assert await read_back(pair, key) == source.read_bytes()


async def test_a_blob_never_changes(pair: Pair) -> None:
    key = pair.key()
    await pair.store.put(key, [b"first"], "image/png")
    await pair.store.put(key, [b"fi", b"rst"], "image/png")
    for other in (b"other", b"first and more", b""):
        with pytest.raises(AlreadyExistsError):
            await pair.store.put(key, [other], "image/png")
    assert await read_back(pair, key) == b"first"


async def test_what_is_not_there(pair: Pair) -> None:
    key = pair.key()
    assert await pair.store.stat(key) is None
    with pytest.raises(NotFoundError):
        await read_back(pair, key)
    with pytest.raises(NotFoundError):
        await pair.urls.read_all(pair.store.read_url(key), 10)
    await pair.store.delete([key])


async def test_delete_and_list(pair: Pair) -> None:
    folder = f"t/{IDS.token()}"
    keys = [f"{folder}/a/1", f"{folder}/a/2.png", f"{folder}/ab/3", f"{folder}/b"]
    for size, key in enumerate(keys):
        await pair.store.put(key, [b"x" * size], "image/png")
    everything = {key: size for size, key in enumerate(keys)}
    assert await listed(pair.store, f"{folder}/") == everything
    assert set(await listed(pair.store, f"{folder}/a")) == set(keys[:3])
    assert set(await listed(pair.store, f"{folder}/a/")) == set(keys[:2])
    assert await listed(pair.store, f"{folder}/c") == {}
    await pair.store.delete([*keys[:3], f"{folder}/never"])
    assert set(await listed(pair.store, f"{folder}/")) == {keys[3]}
    await pair.store.put(keys[0], [b"again"], "image/png")
    assert await read_back(pair, keys[0]) == b"again"


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.", ".tmp/a", "A", "a b", "a%2e", "a\0", "ä"],
)
async def test_bad_keys_are_refused(pair: Pair, key: str) -> None:
    for call in (
        lambda: pair.store.put(key, [b"x"], "image/png"),
        lambda: pair.store.stat(key),
        lambda: pair.store.delete([key]),
        lambda: read_back(pair, key),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            await call()
        assert caught.value.reason == "BAD_BLOB_KEY"
    with pytest.raises(InvalidArgumentError):
        pair.store.write_url(key)


async def test_write_by_url(pair: Pair) -> None:
    key = pair.key("x.zip")
    loop_thread = threading.get_ident()
    seen: set[int] = set()

    def parts() -> Iterator[bytes | memoryview]:
        for each in (b"a" * 10, memoryview(b"b" * MIB), b"", b"c"):
            seen.add(threading.get_ident())
            yield each

    await pair.urls.write(pair.store.write_url(key), MIB + 11, parts())
    assert await read_back(pair, key) == b"a" * 10 + b"b" * MIB + b"c"
    assert loop_thread not in seen
    await pair.urls.write(pair.store.write_url(key), 3, [b"new"])
    assert await read_back(pair, key) == b"new"


async def test_parts_may_reuse_their_buffer(pair: Pair) -> None:
    key = pair.key()

    def parts() -> Iterator[memoryview]:
        buffer = bytearray(1000)
        for number in range(600):
            buffer[:] = bytes([number % 251]) * 1000
            yield memoryview(buffer)

    await pair.urls.write(pair.store.write_url(key), 600_000, parts())
    assert await read_back(pair, key) == b"".join(bytes([n % 251]) * 1000 for n in range(600))


@pytest.mark.parametrize("announced", [2 * MIB - 1, 2 * MIB + 1])
async def test_a_wrong_size_stores_nothing(pair: Pair, announced: int) -> None:
    key = pair.key()
    with pytest.raises(InternalError):
        await pair.urls.write(pair.store.write_url(key), announced, [block(MIB), block(MIB)])
    assert await pair.store.stat(key) is None


async def test_failing_parts_store_nothing(pair: Pair) -> None:
    key = pair.key()

    def parts() -> Iterator[bytes]:
        yield block(MIB)
        raise NotFoundError("file")

    with pytest.raises(NotFoundError) as caught:
        await pair.urls.write(pair.store.write_url(key), 2 * MIB, parts())
    assert caught.value.resource_type == "file"
    assert await pair.store.stat(key) is None


async def test_a_cancelled_write_stores_nothing(pair: Pair) -> None:
    key = pair.key()
    taken, go_on = threading.Event(), threading.Event()

    def parts() -> Iterator[bytes]:
        yield block(MIB)
        taken.set()
        go_on.wait(10)
        yield block(MIB)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(pair.urls.write(pair.store.write_url(key), 2 * MIB, parts()))
        await asyncio.to_thread(taken.wait, 10)
        task.cancel()
    assert task.cancelled()
    go_on.set()
    await pair.urls.close()  # waits for the thread
    assert await pair.store.stat(key) is None


async def test_read_all_has_a_limit(pair: Pair) -> None:
    key = pair.key()
    await pair.store.put(key, [block(MIB)], "image/png")
    assert len(await pair.urls.read_all(pair.store.read_url(key), MIB)) == MIB
    with pytest.raises(DataLossError):
        await pair.urls.read_all(pair.store.read_url(key), MIB - 1)


async def test_a_reader_that_goes_away_holds_nothing(pair: Pair) -> None:
    key = pair.key()
    await pair.store.put(key, [block(8 * MIB)], "image/png")
    for _ in range(40):  # more than there are threads or connections
        async with aclosing(pair.store.read(key)) as chunks:  # type: ignore[type-var]
            assert len(await anext(chunks)) == CHUNK_BYTES
    readers = [pair.store.read(key) for _ in range(40)]  # open and idle: no thread is held
    for reader in readers:
        await anext(reader)
    await pair.store.ping()
    for reader in readers:
        await reader.aclose()  # type: ignore[attr-defined]


async def test_64_mib_in_constant_memory(pair: Pair) -> None:
    key, part = pair.key(), block(MIB)
    sent, received = hashlib.sha256(), hashlib.sha256()

    def parts() -> Iterator[bytes]:
        for _ in range(64):
            sent.update(part)
            yield part

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await pair.urls.write(pair.store.write_url(key), 64 * MIB, parts())
    async for chunk in pair.urls.read(pair.store.read_url(key)):
        received.update(chunk)
    assert received.digest() == sent.digest()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 * 1024  # KiB


# The file store.


async def test_file_urls_outside_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root2").mkdir()
    async with opened(FileBlobStore(root, IDS), FileBlobUrls(root, IDS)) as pair:
        await pair.store.put("a/b", [b"x"], "image/png")
        base = root.as_uri()
        for url in (
            "",
            "a/b",
            str(root / "a/b"),
            base,
            f"{base}/",
            f"{base}/../secret",
            f"{base}/a/../../secret",
            f"{base}/a/%2e%2e/%2e%2e/secret",
            f"{base}/%2e%2e/secret",
            f"{base}//a/b",
            f"{base}/a/b?x=1",
            f"{base}/a/b#x",
            f"{base}/.tmp/x",
            f"{base}2/x",
            f"{tmp_path.as_uri()}/secret",
            base.replace("file:///", "file://host/") + "/a/b",
            base.replace("file:///", "file://localhost/") + "/a/b",
            base.replace("file://", "FILE://") + "/a/b",
            f"{base}/a\\b",
            f"{base}/a/b\0",
            "file:///etc/passwd",
            "http://127.0.0.1/a/b",
        ):
            await refused(pair.urls, url)


async def refused(urls: BlobUrls, url: str) -> None:
    for call in (
        lambda: urls.read_all(url, 10),
        lambda: anext(urls.read(url)),
        lambda: urls.write(url, 1, [b"x"]),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            await call()
        assert caught.value.reason == "BAD_BLOB_URL"
        assert not url or url not in str(caught.value)


async def test_symlinks_below_the_root_lead_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    async with opened(FileBlobStore(root, IDS), FileBlobUrls(root, IDS)) as pair:
        (root / "dir").symlink_to(outside)
        (root / "file").symlink_to(outside / "secret")
        for key in ("dir/secret", "file"):
            with pytest.raises(NotFoundError):
                await read_back(pair, key)
            with pytest.raises(NotFoundError):
                await pair.urls.read_all(pair.store.read_url(key), 10)
            assert await pair.store.stat(key) is None
            await pair.store.delete([key])
        with pytest.raises(NotFoundError):
            await pair.urls.write(pair.store.write_url("dir/new"), 1, [b"x"])
        assert await listed(pair.store, "") == {}
        assert {each.name for each in outside.iterdir()} == {"secret"}
        await pair.urls.write(pair.store.write_url("file"), 1, [b"x"])  # replaces the link itself
        assert (outside / "secret").read_text() == "secret"


async def test_a_root_that_is_itself_a_symlink_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    async with opened(FileBlobStore(link, IDS), FileBlobUrls(link, IDS)) as pair:
        await pair.store.put("a/b", [b"x"], "image/png")
        assert await pair.urls.read_all(pair.store.read_url("a/b"), 1) == b"x"
        assert pair.store.public_read_url("a/b", "b.png", 60) is None


async def test_a_key_below_another_key_is_a_bad_key(tmp_path: Path) -> None:
    async with opened(FileBlobStore(tmp_path, IDS), FileBlobUrls(tmp_path, IDS)) as pair:
        await pair.store.put("a/b", [b"x"], "image/png")
        for key in ("a", "a/b/c"):
            with pytest.raises(InvalidArgumentError):
                await pair.store.put(key, [b"x"], "image/png")
            with pytest.raises(NotFoundError):
                await read_back(pair, key)
        assert temp_files(tmp_path) == []


def temp_files(root: Path) -> list[str]:
    return [each.name for each in (root / blobs_disk.TEMP_FOLDER).iterdir()]


WRITER = """
import sys, threading
from pathlib import Path
from libs.common import blobs_disk
def parts():
    yield b"x" * 1_000_000
    print("half way", flush=True)
    sys.stdin.read()
blobs_disk.write_whole(Path(sys.argv[1]), "t/1", parts(), size=None,
                       token=lambda: "dead", stop=threading.Event())
"""


async def test_a_writer_killed_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    root = blobs_disk.real_root(tmp_path / "root")
    store = FileBlobStore(root, IDS)
    async with opened(store, FileBlobUrls(root, IDS)) as pair:
        writer = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WRITER,
            str(root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert writer.stdout is not None
            assert await writer.stdout.readline() == b"half way\n"
            assert await pair.store.stat("t/1") is None
            assert await listed(pair.store, "") == {}
            await store.start()  # the writer lives: its file stays
            assert temp_files(root) == ["dead"]
        finally:
            writer.kill()
            await writer.wait()
        assert await pair.store.stat("t/1") is None
        assert await listed(pair.store, "") == {}
        await store.start()
        assert temp_files(root) == []
        await pair.store.put("t/1", [b"x"], "image/png")


@asynccontextmanager
async def small_disk(folder: Path) -> AsyncIterator[Callable[[str], Any]]:
    """A 4 MiB tmpfs at folder; the value remounts it with options."""
    await asyncio.to_thread(folder.mkdir)
    mounted = await asyncio.to_thread(_mount, folder, "size=4m")
    if mounted.returncode:
        pytest.skip(f"no tmpfs mount: {mounted.stderr.decode().strip() or 'not allowed'}")
    try:
        yield lambda options: asyncio.to_thread(_mount, folder, f"remount,{options}")
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(folder)], check=True)


def _mount(folder: Path, options: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess([], 1, b"", b"there is no mount command")


async def test_a_full_or_read_only_disk(tmp_path: Path) -> None:
    async with small_disk(tmp_path / "disk") as remount:
        root = tmp_path / "disk" / "root"
        async with opened(FileBlobStore(root, IDS), FileBlobUrls(root, IDS)) as pair:
            await pair.store.put("t/fits", [block(MIB)], "image/png")
            await storage_full(pair, "t/full")
            await pair.store.put("t/fits2", [block(MIB)], "image/png")  # the temporary file is gone
            await remount("ro")
            await storage_full(pair, "t/ro")
            with pytest.raises(UnavailableError):
                await pair.store.ping()
            assert len(await read_back(pair, "t/fits")) == MIB
            await remount("rw")
            await pair.store.ping()
            await pair.store.delete(["t/fits"])
            await pair.store.put("t/fits3", [block(MIB)], "image/png")


async def storage_full(pair: Pair, key: str) -> None:
    for call in (
        lambda: pair.store.put(key, [block(8 * MIB)], "image/png"),
        lambda: pair.urls.write(pair.store.write_url(key), 8 * MIB, (block(MIB) for _ in range(8))),
    ):
        with pytest.raises(ResourceExhaustedError) as caught:
            await call()
        assert caught.value.reason == "STORAGE_FULL"
    assert await pair.store.stat(key) is None


# The S3 store.


def query_of(url: str) -> str:
    return url.partition("?")[2]


@pytest.mark.real
async def test_s3_urls_of_elsewhere_are_refused(seaweed: SeaweedServer) -> None:
    store = s3_store(seaweed, seaweed.endpoint)
    urls = S3BlobUrls(endpoint=seaweed.endpoint, bucket=seaweed.bucket, clock=CLOCK, ids=IDS)
    async with opened(store, urls) as pair:
        good = pair.store.write_url("a/b")
        base, signed = f"{seaweed.endpoint}/{seaweed.bucket}", query_of(good)
        for url in (
            "",
            "a/b",
            base,
            f"{base}/a/b",  # not signed
            good.replace("127.0.0.1", "localhost"),
            good.replace("127.0.0.1", "169.254.169.254"),
            good.replace("127.0.0.1:", "127.0.0.1.evil.test:"),
            good.replace("http://", "http://127.0.0.1@evil.test:80/"),
            good.replace("http://", "http://user:word@"),
            good.replace("http://", "https://"),
            good.replace("http://", "file://"),
            good.replace(seaweed.host, "127.0.0.1:1"),
            good.replace(seaweed.host, "127.0.0.1"),
            good.replace(f"/{seaweed.bucket}/", "/other/"),
            good.replace(f"/{seaweed.bucket}/", f"/{seaweed.bucket}2/"),
            f"{base}/../other/a?{signed}",
            f"{base}/a/../../other/b?{signed}",
            f"{base}/%2e%2e/other/a?{signed}",
            f"{base}/a%2fb?{signed}",
            f"{base}/a\\b?{signed}",
            f"{base}/?{signed}",
            f"{good}&acl=",
            f"{good}&uploadId=1",
            f"{good}#x",
            f"{good}\n",
            f" {good}",
            good.replace("/a/b", "/a/\tb"),
        ):
            await refused(pair.urls, url)


@pytest.mark.real
async def test_redirects_are_not_followed(seaweed: SeaweedServer, faulty: Faulty) -> None:
    url = faulty.store.read_url("a/b")
    faulty.proxy.requests.clear()
    faulty.proxy.add(Fault(status=307, location=f"{seaweed.endpoint}/x", times=9))
    with pytest.raises(UnavailableError):
        await faulty.urls.read_all(url, 10)
    with pytest.raises(UnavailableError):
        await faulty.urls.write(faulty.store.write_url("a/c"), 1, [b"x"])
    with pytest.raises(UnavailableError):
        await faulty.store.stat("a/b")
    assert len(faulty.proxy.requests) == 3


@pytest.mark.real
async def test_presigned_urls_work_with_any_client(seaweed: SeaweedServer) -> None:
    host, port = seaweed.host.split(":")
    async with FaultyHttp(host, int(port)).running() as public:
        store = s3_store(seaweed, seaweed.endpoint, public_endpoint=public.endpoint)
        pool = urllib3.PoolManager(retries=False)

        async def fetch(method: str, url: str, body: bytes | None = None) -> Any:
            return await asyncio.to_thread(pool.request, method, url, body=body)

        try:
            key = f"t/{IDS.token()}/x.png"
            assert (await fetch("PUT", store.write_url(key), body=b"bytes")).status == 200
            assert (await fetch("GET", store.read_url(key))).data == b"bytes"
            name = 'größe "x"; a/b\r\n50%.png'
            url = store.public_read_url(key, name, 60)
            assert url is not None
            assert url.startswith(public.endpoint)
            answer = await fetch("GET", url)
            assert answer.data == b"bytes"
            assert answer.headers["content-disposition"] == (
                'attachment; filename="gr__e x_ ab50_.png"; '
                "filename*=UTF-8''gr%C3%B6%C3%9Fe%20x%3B%20ab50%25.png"
            )
            forged = url.replace("x.png", "y.png")
            assert (await fetch("GET", forged)).status == 403
        finally:
            pool.clear()
            await store.close()


@pytest.mark.real
async def test_listing_goes_on_past_a_page(seaweed: SeaweedServer) -> None:
    store = s3_store(seaweed, seaweed.endpoint, list_page=2)
    urls = S3BlobUrls(endpoint=seaweed.endpoint, bucket=seaweed.bucket, clock=CLOCK, ids=IDS)
    async with opened(store, urls) as pair:
        folder = f"t/{IDS.token()}"
        keys = {f"{folder}/{place}/{n}" for place in ("a", "b") for n in range(3)}
        for key in keys:
            await pair.store.put(key, [b"x"], "image/png")
        assert set(await listed(pair.store, folder)) == keys


@pytest.mark.real
async def test_a_missing_bucket(seaweed: SeaweedServer) -> None:
    name = f"made-{IDS.token()[:8]}"
    store = s3_store(seaweed, seaweed.endpoint, bucket=name)
    maker = s3_store(seaweed, seaweed.endpoint, bucket=name, create_bucket=True)
    wrong = s3_store(seaweed, seaweed.endpoint, secret_key="wrong")
    try:
        with pytest.raises(FailedPreconditionError):
            await store.start()
        with pytest.raises(UnavailableError):
            await store.ping()
        await maker.start()
        await maker.start()
        await store.start()
        await store.ping()
        with pytest.raises(UnavailableError) as caught:
            await wrong.ping()
        assert caught.value.reason == "STORAGE_REFUSED"
    finally:
        for each in (store, maker, wrong):
            await each.close()


# Faults on the way to the S3.


@pytest.mark.real
async def test_503_twice_then_fine(faulty: Faulty) -> None:
    key, proxy = faulty.key(), faulty.proxy
    proxy.add(Fault("PUT", status=503, times=2))
    await faulty.store.put(key, [b"bytes"], "image/png")
    assert proxy.count("PUT") == 3
    proxy.add(Fault("GET", status=503, times=2))
    assert await read_back(faulty, key) == b"bytes"
    proxy.add(Fault("GET", status=500, times=2))
    assert await faulty.urls.read_all(faulty.store.read_url(key), 10) == b"bytes"
    proxy.add(Fault("HEAD", status=503, times=2))
    assert await faulty.store.stat(key) is not None
    proxy.add(Fault("GET", status=503, times=2))
    assert await listed(faulty.store, key) == {key: 5}
    proxy.add(Fault("POST", status=503, times=2))
    await faulty.store.delete([key])
    assert await faulty.store.stat(key) is None


@pytest.mark.real
async def test_503_for_ever_ends_after_three_tries(faulty: Faulty) -> None:
    faulty.proxy.add(Fault(status=503, times=99))
    with pytest.raises(UnavailableError):
        await read_back(faulty, "a/b")
    assert faulty.proxy.count("GET") == 3
    with pytest.raises(UnavailableError):
        await faulty.store.put("a/b", [b"x"], "image/png")


@pytest.mark.real
async def test_a_put_whose_answer_is_lost_is_done_once(faulty: Faulty) -> None:
    key = faulty.key()
    faulty.proxy.add(Fault("PUT", drop_answer=True))
    await faulty.store.put(key, [b"bytes"], "image/png")
    assert faulty.proxy.count("PUT") == 1
    assert await read_back(faulty, key) == b"bytes"


@pytest.mark.real
async def test_damage_on_the_way_is_seen(faulty: Faulty) -> None:
    key, data = faulty.key(), block(MIB)
    faulty.proxy.add(Fault("PUT", flip_request_at=500_000))
    await faulty.store.put(key, [data], "image/png")  # refused by its checksum, and sent again
    assert faulty.proxy.count("PUT") == 2
    assert await read_back(faulty, key) == data
    faulty.proxy.add(Fault("PUT", flip_request_at=500_000))
    with pytest.raises(UnavailableError) as caught:
        await faulty.urls.write(faulty.store.write_url(faulty.key()), MIB, [data])
    assert caught.value.reason == "BLOB_DAMAGED"


@pytest.mark.real
@pytest.mark.parametrize("after", [0, 100_000, CHUNK_BYTES, 2 * CHUNK_BYTES - 1])
async def test_a_truncated_get_is_an_error(faulty: Faulty, after: int) -> None:
    key = faulty.key()
    await faulty.store.put(key, [block(2 * CHUNK_BYTES)], "image/png")
    faulty.proxy.add(Fault("GET", cut_answer_after=after, times=2))
    with pytest.raises(UnavailableError):
        await read_back(faulty, key)
    with pytest.raises(UnavailableError):
        await faulty.urls.read_all(faulty.store.read_url(key), 10 * MIB)
    assert len(await read_back(faulty, key)) == 2 * CHUNK_BYTES


@pytest.mark.real
async def test_a_stall_ends_at_the_deadline(seaweed: SeaweedServer) -> None:
    async with behind_proxy(seaweed, deadline_seconds=1.0, read_seconds=3.0) as faulty:
        faulty.proxy.add(Fault(stall=True, times=99))
        key = faulty.key()
        read_url, write_url = faulty.store.read_url(key), faulty.store.write_url(key)
        for call in (
            faulty.store.ping,
            lambda: faulty.store.put(key, [b"x"], "image/png"),
            lambda: faulty.urls.read_all(read_url, 10),
            lambda: faulty.urls.write(write_url, 1, [b"x"]),
        ):
            began = time.monotonic()
            with pytest.raises(UnavailableError):
                await call()
            assert time.monotonic() - began < 1.5


@pytest.mark.real
async def test_a_server_that_is_away_and_comes_back() -> None:
    server = SeaweedServer()
    try:
        await asyncio.to_thread(server.start)
        store = s3_store(server, server.endpoint, deadline_seconds=2.0, read_seconds=2.0)
        key = f"t/{IDS.token()}"
        try:
            await store.put(key, [b"bytes"], "image/png")
            server.pause()
            with pytest.raises(UnavailableError):
                await store.ping()
            server.resume()
            assert await store.stat(key) is not None
            await asyncio.to_thread(server.stop)
            with pytest.raises(UnavailableError):
                await store.put(f"{key}x", [b"bytes"], "image/png")
            await asyncio.to_thread(server.start)
            assert b"".join([chunk async for chunk in store.read(key)]) == b"bytes"
        finally:
            await store.close()
    finally:
        await asyncio.to_thread(server.close)
