"""One contract for both blob stores."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.common.blobs import CHUNK_BYTES
from libs.common.blobs_open import open_blob_store, open_blob_urls
from libs.common.errors import (
    AlreadyExistsError,
    DataLossError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
)
from tests.support.blob_pairs import (
    CLOCK,
    IDS,
    MIB,
    Pair,
    block,
    listed,
    opened,
    read_back,
    temp_files,
)
from tests.support.seaweed import SeaweedServer


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
    if request.param == "file":  # whatever happened, and after the threads have ended
        assert temp_files(tmp_path / "a folder") == []


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
