"""Blob stores opened for tests, plain and behind a faulty proxy."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from libs.common import blobs_disk
from libs.common.blobs import BlobStore, BlobUrls
from libs.common.blobs_s3 import S3BlobStore
from libs.common.blobs_urls import S3BlobUrls
from libs.common.clock import SystemClock
from libs.common.errors import (
    InvalidArgumentError,
)
from libs.common.ids import SystemIds
from tests.support.faulty_http import FaultyHttp
from tests.support.seaweed import SeaweedServer

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


async def read_back(pair: Pair, key: str) -> bytes:
    return b"".join([chunk async for chunk in pair.store.read(key)])


def block(size: int, seed: int = 1) -> bytes:
    return bytes((hashlib.sha256(seed.to_bytes(4, "big")).digest() * (size // 32 + 1))[:size])


async def listed(store: BlobStore, prefix: str) -> dict[str, int]:
    return {blob.key: blob.size async for blob in store.list(prefix)}


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


def temp_files(root: Path) -> list[str]:
    return [each.name for each in (root / blobs_disk.TEMP_FOLDER).iterdir()]
