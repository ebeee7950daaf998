"""The pace of uploads: one that stalls is ended, one too many is told to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from contentshop.assets.v1 import assets_pb2, backend_pb2
from libs.common.errors import (
    DeadlineExceededError,
    ResourceExhaustedError,
)
from tests.support.assets_house import (
    DATABASES,
    PNG,
    AssetsHouse,
    database,
    nothing_in,
    opened,
    reason_of,
    sha256,
)
from tests.support.eventually import eventually

Part = assets_pb2.UploadFileRequest
CHUNK_PART = Part(chunk=PNG)


def header(**said: Any) -> Part:
    return Part(header=assets_pb2.UploadHeader(**said))


@asynccontextmanager
async def hasty_house(
    request: pytest.FixtureRequest, folder: Path, **changes: Any
) -> AsyncIterator[AssetsHouse]:
    """A house with little patience and two places, where nothing stays."""
    values: dict[str, Any] = {
        "chunk_seconds": 0.3,
        "upload_seconds": 3.0,
        "uploads": 2,
        "uploads_per_team": 1,
        "place_seconds": 0.05,
        "generated": 1,
    }
    urls = database(request.param, request, folder)
    made = AssetsHouse(urls, (folder / "blobs").as_uri(), **(values | changes))
    async with opened(made):
        yield made
        await nothing_in(folder / "blobs")
        assert await made.rows() == 0


@pytest.fixture(params=DATABASES)
async def hasty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AssetsHouse]:
    async with hasty_house(request, tmp_path) as made:
        yield made


@pytest.fixture(params=DATABASES)
async def slow(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AssetsHouse]:
    """As hasty, but the whole of an upload may take long."""
    async with hasty_house(request, tmp_path, upload_seconds=60.0) as made:
        yield made


@pytest.fixture(params=DATABASES)
async def full(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AssetsHouse]:
    """As hasty, but who has a place may keep it until he goes."""
    async with hasty_house(request, tmp_path, chunk_seconds=60.0, upload_seconds=60.0) as made:
        yield made


async def stalling(*parts: Part) -> AsyncIterator[Part]:
    for part in parts:
        yield part
    await asyncio.Event().wait()


STALLS: list[tuple[str, list[Part]]] = [
    ("no-header", []),
    ("no-bytes", [header(size_bytes=len(PNG))]),
    ("half", [header(size_bytes=len(PNG)), Part(chunk=PNG[:50])]),
    ("no-end", [header(size_bytes=len(PNG)), CHUNK_PART]),
]


@pytest.mark.parametrize("parts", [p for _, p in STALLS], ids=[n for n, _ in STALLS])
async def test_a_stalled_upload_is_ended(hasty: AssetsHouse, parts: list[Part]) -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        await hasty.team("slow").send(stalling(*parts))
    assert caught.value.reason == "UPLOAD_STALLED"


async def test_a_stalled_image_is_ended(hasty: AssetsHouse) -> None:
    said = backend_pb2.StoreGeneratedHeader(
        team="slow", job_id=1, image_index=1, size_bytes=9, sha256=sha256(b"")
    )

    async def parts() -> AsyncIterator[backend_pb2.StoreGeneratedRequest]:
        yield backend_pb2.StoreGeneratedRequest(header=said)
        await asyncio.Event().wait()

    call = hasty.backend().call("StoreGenerated", parts())
    assert await reason_of(call) == "UPLOAD_STALLED"


async def dripping(piece: bytes) -> AsyncIterator[Part]:
    yield header(size_bytes=len(PNG))
    while True:
        yield Part(chunk=piece)
        await asyncio.sleep(0.02)


async def test_drops_do_not_keep_an_upload_alive(hasty: AssetsHouse) -> None:
    assert await reason_of(hasty.team("slow").send(dripping(b"x"))) == "UPLOAD_STALLED"


async def test_pieces_without_bytes_are_a_stall(slow: AssetsHouse) -> None:
    started = slow.clock.monotonic()
    assert await reason_of(slow.team("slow").send(dripping(b""))) == "UPLOAD_STALLED"
    assert slow.clock.monotonic() - started < 30  # and not only when the whole takes too long


async def test_uploads_above_the_places_are_told_to_come_back(full: AssetsHouse) -> None:
    slow = full.team("slow")
    held = stalling(header(size_bytes=len(PNG)), Part(chunk=PNG[:50]))

    async def refusal() -> ResourceExhaustedError | None:
        try:
            file = await slow.upload()
        except ResourceExhaustedError as error:
            return error
        await slow.delete(file.id)
        return None

    async def has_begun() -> bool:
        return (await slow.storage()).stored_bytes == len(PNG)

    async def taken_in() -> bool:
        return await refusal() is None

    async with asyncio.TaskGroup() as tasks:
        stalled = tasks.create_task(slow.send(held))
        await eventually(has_begun)
        busy = await refusal()
        assert busy is not None
        assert busy.reason == "SERVER_BUSY"
        assert busy.retry_after_seconds
        other = full.team("quick")  # one team does not take all the places
        await other.delete((await other.upload()).id)
        stalled.cancel()
    await eventually(taken_in)

    async def removed() -> bool:
        return await full.rows() == 0

    await eventually(removed)
