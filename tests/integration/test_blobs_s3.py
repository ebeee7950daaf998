"""What the S3 blob store must survive: odd URLs, a faulty network, a server that goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import urllib3

from libs.common.blobs import CHUNK_BYTES
from libs.common.blobs_urls import S3BlobUrls
from libs.common.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    UnavailableError,
)
from tests.support.blob_pairs import (
    CLOCK,
    IDS,
    MIB,
    Faulty,
    behind_proxy,
    block,
    listed,
    opened,
    read_back,
    refused,
    s3_store,
)
from tests.support.faulty_http import Fault, FaultyHttp
from tests.support.seaweed import SeaweedServer

pytestmark = pytest.mark.real


@pytest.fixture
async def faulty(seaweed: SeaweedServer) -> AsyncIterator[Faulty]:
    async with behind_proxy(seaweed) as both:
        yield both


def query_of(url: str) -> str:
    return url.partition("?")[2]


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
            url = store.public_write_url(f"{key}.raw", 5, 60)
            assert url is not None
            assert url.startswith(public.endpoint)
            assert (await fetch("PUT", url, body=b"longer")).status == 403
            assert (await fetch("PUT", url, body=b"bytes")).status == 200
            assert (await fetch("GET", store.read_url(f"{key}.raw"))).data == b"bytes"
        finally:
            pool.clear()
            await store.close()


async def test_listing_goes_on_past_a_page(seaweed: SeaweedServer) -> None:
    store = s3_store(seaweed, seaweed.endpoint, list_page=2)
    urls = S3BlobUrls(endpoint=seaweed.endpoint, bucket=seaweed.bucket, clock=CLOCK, ids=IDS)
    async with opened(store, urls) as pair:
        folder = f"t/{IDS.token()}"
        keys = {f"{folder}/{place}/{n}" for place in ("a", "b") for n in range(3)}
        for key in keys:
            await pair.store.put(key, [b"x"], "image/png")
        assert set(await listed(pair.store, folder)) == keys


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


async def test_503_for_ever_ends_after_three_tries(faulty: Faulty) -> None:
    faulty.proxy.add(Fault(status=503, times=99))
    with pytest.raises(UnavailableError):
        await read_back(faulty, "a/b")
    assert faulty.proxy.count("GET") == 3
    with pytest.raises(UnavailableError):
        await faulty.store.put("a/b", [b"x"], "image/png")


async def test_a_conflict_is_tried_again_and_what_is_there_stays(faulty: Faulty) -> None:
    key, proxy = faulty.key(), faulty.proxy
    proxy.add(Fault("PUT", status=409))
    await faulty.store.put(key, [b"bytes"], "image/png")
    assert proxy.count("PUT") == 2
    proxy.add(Fault("PUT", status=412, times=2))
    await faulty.store.put(key, [b"bytes"], "image/png")  # of the same bytes: done before
    with pytest.raises(AlreadyExistsError):
        await faulty.store.put(key, [b"other"], "image/png")
    assert await read_back(faulty, key) == b"bytes"


async def test_a_put_whose_answer_is_lost_is_done_once(faulty: Faulty) -> None:
    key = faulty.key()
    faulty.proxy.add(Fault("PUT", drop_answer=True))
    await faulty.store.put(key, [b"bytes"], "image/png")
    assert faulty.proxy.count("PUT") == 1
    assert await read_back(faulty, key) == b"bytes"


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


async def test_a_stall_ends_at_the_deadline(seaweed: SeaweedServer) -> None:
    async with behind_proxy(seaweed, deadline_seconds=1.0, read_seconds=1.5) as faulty:
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
            assert time.monotonic() - began < 25  # urllib3 would wait for ever


async def test_a_stall_within_a_blob_ends_the_read(seaweed: SeaweedServer) -> None:
    async with behind_proxy(seaweed, read_seconds=0.5) as faulty:
        key = faulty.key()
        await faulty.store.put(key, [block(2 * CHUNK_BYTES)], "image/png")
        faulty.proxy.add(Fault("GET", stall_answer_after=CHUNK_BYTES + 1))
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            await faulty.urls.read_all(faulty.store.read_url(key), 10 * MIB)
        assert time.monotonic() - began < 25


async def test_cancelling_a_stalled_read_frees_its_thread_at_once(seaweed: SeaweedServer) -> None:
    async with behind_proxy(seaweed, read_seconds=60.0) as faulty:
        key = faulty.key()
        await faulty.store.put(key, [block(2 * CHUNK_BYTES)], "image/png")
        faulty.proxy.add(Fault("GET", stall_answer_after=CHUNK_BYTES + 1))
        chunks = faulty.urls.read(faulty.store.read_url(key))
        await anext(chunks)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(chunks)
        began = time.monotonic()
        await faulty.urls.close()  # waits for the threads
        assert time.monotonic() - began < 20


async def test_a_server_that_is_away_and_comes_back() -> None:
    server = SeaweedServer()
    try:
        await asyncio.to_thread(server.start)
        store = s3_store(server, server.endpoint)
        hasty = s3_store(server, server.endpoint, deadline_seconds=2.0, read_seconds=2.0)
        key = f"t/{IDS.token()}"
        try:
            await store.put(key, [b"bytes"], "image/png")
            server.pause()
            with pytest.raises(UnavailableError):
                await hasty.ping()
            server.resume()
            assert await store.stat(key) is not None
            await asyncio.to_thread(server.kill)
            with pytest.raises(UnavailableError):
                await hasty.put(f"{key}x", [b"bytes"], "image/png")
            await asyncio.to_thread(server.start)
            assert b"".join([chunk async for chunk in store.read(key)]) == b"bytes"
        finally:
            await hasty.close()
            await store.close()
    finally:
        await asyncio.to_thread(server.close)
