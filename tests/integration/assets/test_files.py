"""Files of a team: their life, lists, other teams' files, bytes that changed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
import urllib3

from contentshop.assets.v1 import assets_pb2
from libs.common.errors import (
    DataLossError,
    InvalidArgumentError,
    PermissionDeniedError,
)
from tests.fixtures import images
from tests.support.assets_house import (
    AssetsHouse,
    Backend,
    Team,
    blob_files,
    opened,
    read_url,
    reason_of,
    sha256,
)
from tests.support.databases import sqlite_database
from tests.support.eventually import eventually
from tests.support.seaweed import SeaweedServer


async def life_of_a_file(house: AssetsHouse) -> assets_pb2.File:
    team, backend = house.team("red"), house.backend()
    data = images.encoded("JPEG", images.picture(64, 48))
    file = await team.upload(
        data, filename="Schuh.jpg", content_type="image/jpeg", sha256=sha256(data).upper()
    )
    assert file.id > 0
    assert file.kind == assets_pb2.FILE_KIND_UPLOAD
    assert (file.filename, file.content_type) == ("Schuh.jpg", "image/jpeg")
    assert (file.width, file.height) == (64, 48)
    assert file.upload_url == f"/api/uploads/{file.id}/file"
    assert abs(file.create_time.ToDatetime().timestamp()) > 0
    assert await team.get(file.id) == file
    assert await team.files() == [file]
    facts, stored = await team.download(file.id)
    assert facts == file
    assert (len(stored), sha256(stored)) == (file.size_bytes, file.sha256)
    (image,) = await backend.resolve("red", file.id)
    assert (image.file_id, image.sha256, image.width) == (file.id, file.sha256, 64)
    assert image.crc32 == zlib.crc32(stored)
    assert await read_url(house, image.blob_url) == stored
    return file


async def test_the_life_of_a_file(house: AssetsHouse, blobs: Path) -> None:
    file = await life_of_a_file(house)
    team = house.team("red")
    request = assets_pb2.CreateDownloadUrlRequest(file_id=file.id)
    assert await reason_of(team.call("CreateDownloadUrl", request)) == "NO_PUBLIC_URLS"
    await team.delete(file.id)
    for call in (team.get(file.id), team.delete(file.id), team.download(file.id)):
        assert await reason_of(call) == "RESOURCE_NOT_FOUND"
    assert await team.files() == []
    with pytest.raises(InvalidArgumentError):
        await house.backend().resolve("red", file.id)
    await eventually(lambda: not blob_files(blobs))

    async def forgotten() -> bool:
        return await house.rows() == 0

    await eventually(forgotten)


@pytest.mark.real
async def test_the_life_of_a_file_in_s3(seaweed: SeaweedServer, tmp_path: Path) -> None:
    house = AssetsHouse(
        sqlite_database("assets", tmp_path),
        seaweed.blob_url(),
        blob_access_key=seaweed.access_key,
        blob_secret_key=seaweed.secret_key,
    )
    async with opened(house):
        file = await life_of_a_file(house)
        team = house.team("red")
        request = assets_pb2.CreateDownloadUrlRequest(file_id=file.id, ttl_seconds=60)
        answer = await team.call("CreateDownloadUrl", request)
        left = answer.expire_time.ToDatetime(tzinfo=house.clock.now().tzinfo) - house.clock.now()
        assert 50 < left.total_seconds() <= 60
        pool = urllib3.PoolManager()
        fetched = await asyncio.to_thread(pool.request, "GET", answer.url)
        assert sha256(fetched.data) == file.sha256
        assert "Schuh.jpg" in fetched.headers["content-disposition"]
        await asyncio.to_thread(pool.clear)
        stored = await house.backend().store("red", 7, 1, images.encoded("WEBP"))
        assert b"trainedAlgorithmicMedia" in await read_url(house, stored.image.blob_url)
        await team.delete(file.id)
        await house.ended("red", 7)

        async def forgotten() -> bool:
            return await house.rows() == 0

        await eventually(forgotten)


async def test_a_large_file_comes_in_chunks(red: Team) -> None:
    noise = images.encoded("PNG", images.picture(900, 900), compress_level=0)
    file = await red.upload(noise)
    request = assets_pb2.DownloadFileRequest(file_id=file.id)
    parts = [part async for part in red.client.stream(red.stub.DownloadFile, request)]
    assert len(parts) > 4
    assert max(len(part.chunk) for part in parts) == 512 * 1024


async def answer_of(call: Awaitable[Any]) -> tuple[Any, ...]:
    """Everything that a refused caller sees."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        trailers = [(k, v) for k, v in error.trailing_metadata() or () if k != "date"]
        return error.code(), error.details(), trailers
    raise AssertionError("not refused")


async def test_other_teams_files_are_like_none(
    house: AssetsHouse, red: Team, blue: Team, backend: Backend
) -> None:
    mine, deleted = await red.upload(), await blue.upload()
    await blue.delete(deleted.id)
    metadata = (("authorization", f"Bearer {house.team_token('blue')}"),)
    for name in ("GetFile", "DownloadFile", "CreateDownloadUrl", "DeleteFile"):
        request_class = getattr(assets_pb2, f"{name}Request")

        async def ask(file_id: int, name: str = name, made: Any = request_class) -> Any:
            call = getattr(blue.stub, name)(made(file_id=file_id), metadata=metadata)
            return await (call.read() if name == "DownloadFile" else call)

        answers = [await answer_of(ask(file_id)) for file_id in (mine.id, 999_999, deleted.id)]
        assert answers[0][0] is grpc.StatusCode.NOT_FOUND
        assert answers[0] == answers[1] == answers[2]
        for bad in (0, -1):
            assert (await answer_of(ask(bad)))[0] is grpc.StatusCode.INVALID_ARGUMENT
    refusals = []
    for file_id in (mine.id, 999_999, deleted.id):
        with pytest.raises(InvalidArgumentError) as caught:
            await backend.resolve("blue", file_id)
        refusals.append((caught.value.message, caught.value.violations))
    assert refusals[0] == refusals[1] == refusals[2]
    assert (await red.get(mine.id)).id == mine.id


async def test_the_same_bytes_of_two_teams_are_two_blobs(
    red: Team, blue: Team, blobs: Path
) -> None:
    """Else how fast an upload is, or what it counts, would tell that another team has it."""
    mine = await red.upload()
    stored = len(blob_files(blobs))
    theirs = await blue.upload()
    assert theirs.sha256 == mine.sha256
    assert len(blob_files(blobs)) == 2 * stored
    assert (await blue.storage()).stored_bytes == (await red.storage()).stored_bytes > 0
    await red.delete(mine.id)
    assert (await blue.download(theirs.id))[0].id == theirs.id


async def test_files_are_listed_in_pages(red: Team, blue: Team) -> None:
    made = [await red.upload() for _ in range(5)]
    await blue.upload()
    seen: list[int] = []
    token = ""
    for expected in (2, 2, 1):
        request = assets_pb2.ListFilesRequest(page_size=2, page_token=token)
        page = await red.call("ListFiles", request)
        assert len(page.files) == expected
        seen += [file.id for file in page.files]
        token = page.next_page_token
        if expected == 2:
            assert token
            for other in (blue, red):
                kind = assets_pb2.FileKind.ValueType(int(other is red))
                stolen = assets_pb2.ListFilesRequest(page_token=token, kind=kind)
                assert await reason_of(other.call("ListFiles", stolen)) == "BAD_PAGE_TOKEN"
    assert token == ""
    assert seen == sorted((file.id for file in made), reverse=True)
    for wrong in ({"page_size": 201}, {"page_size": -1}, {"kind": 99}, {"job_id": -1}):
        with pytest.raises(InvalidArgumentError):
            await red.files(**wrong)
    assert await reason_of(red.files(page_token="nonsense")) == "BAD_PAGE_TOKEN"


async def test_each_door_takes_its_own_tokens(house: AssetsHouse, red: Team) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        await Backend(red.client).resolve("red", 1)
    assert caught.value.reason == "SERVICE_ONLY"
    with pytest.raises(PermissionDeniedError):
        await Team(house.backend().client, "red").get(1)


async def test_changed_bytes_are_not_served(red: Team, blobs: Path) -> None:
    file = await red.upload()
    (blob,) = blob_files(blobs)
    content = bytearray(blob.read_bytes())
    content[-20] ^= 1
    blob.write_bytes(content)
    with pytest.raises(DataLossError):
        await red.download(file.id)
    blob.unlink()
    with pytest.raises(DataLossError):
        await red.download(file.id)
