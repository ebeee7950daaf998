"""A file deleted while it is read; a service told twice to stop while it is busy."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contentshop.assets.v1 import assets_pb2
from libs.common.errors import NotFoundError, UnavailableError
from libs.common.grpc_client import RpcClient, open_channel
from libs.common.lifecycle import TaskOwner
from tests.fixtures import images
from tests.support.assets_house import SECRET, AssetsHouse, MakeHouse, Team
from tests.support.databases import sqlite_database
from tests.support.eventually import eventually
from tests.support.service_process import service_process


async def test_a_download_that_was_begun_ends_whole_beside_a_deletion(
    make_house: MakeHouse,
) -> None:
    house = await make_house(removal_seconds=900.0)  # as it is in production
    team = house.team("red")
    noise = images.encoded("PNG", images.picture(900, 900), compress_level=0)
    file = await team.upload(noise)
    request = assets_pb2.DownloadFileRequest(file_id=file.id)
    stream = team.client.stream(team.stub.DownloadFile, request)
    parts = [await anext(stream), await anext(stream)]
    await team.delete(file.id)
    with pytest.raises(NotFoundError):
        await team.download(file.id)
    parts += [part async for part in stream]
    assert b"".join(part.chunk for part in parts) == noise


async def test_a_second_signal_ends_a_busy_service_at_once(tmp_path: Path) -> None:
    urls, blobs, log = sqlite_database("assets", tmp_path), tmp_path / "blobs", tmp_path / "log"
    house = AssetsHouse(urls, blobs.as_uri())
    environ = {
        **urls.settings("assets"),
        "ASSETS_LISTEN": "127.0.0.1:0",
        "AUTH_SECRET": SECRET,
        "SERVICE_SECRET": SECRET,
        "BLOB_URL": blobs.as_uri(),
        "ASSETS_CHUNK_SECONDS": "600",
        "ASSETS_UPLOAD_SECONDS": "600",
        "GRACE_SECONDS": "600",
    }
    token, begun = house.team_token("red"), asyncio.Event()

    async def stalled() -> AsyncIterator[assets_pb2.UploadFileRequest]:
        header = assets_pb2.UploadHeader(filename="photo.png", size_bytes=1000)
        yield assets_pb2.UploadFileRequest(header=header)
        begun.set()
        await asyncio.Event().wait()

    owner = TaskOwner()
    async with service_process("assets", environ, log=log) as running:
        client = RpcClient(open_channel(f"127.0.0.1:{running.port}"), lambda: token)
        team = Team(client, "red")
        call = owner.spawn(team.call("UploadFile", stalled()), name="upload", awaited=True)
        await begun.wait()

        async def taken_in() -> bool:
            return (await team.storage()).stored_bytes == 1000  # reserved

        await eventually(taken_in)
        running.process.send_signal(signal.SIGTERM)
        await eventually(lambda: b"service.stopping" in log.read_bytes(), timeout_seconds=30)
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() != 0
        with pytest.raises(UnavailableError):
            await call
        await client.close()
    await house.db.stop()
