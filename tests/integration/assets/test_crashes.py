"""assets dies by SIGKILL at each step of an upload and of a deletion, and what is left of them."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from libs.common.errors import NotFoundError, UnavailableError
from libs.common.grpc_client import RpcClient, open_channel
from tests.support.assets_house import (
    DATABASES,
    PNG,
    SECRET,
    AssetsHouse,
    Team,
    blob_files,
    database,
    nothing_in,
    opened,
    sha256,
)
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually
from tests.support.service_process import service_process

REMOVAL_SECONDS = "2"  # time to die before the blob is removed


@pytest.fixture(params=DATABASES)
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseUrls:
    return database(request.param, request, tmp_path)


async def die(house: AssetsHouse, point: str, doing: Callable[[Team], Awaitable[Any]]) -> None:
    """An assets on the house's database and blobs that dies at a point."""
    environ = {
        **house.urls.settings("assets"),
        "ASSETS_LISTEN": "127.0.0.1:0",
        "AUTH_SECRET": SECRET,
        "SERVICE_SECRET": SECRET,
        "BLOB_URL": house.settings.blob_url,
        "ASSETS_REMOVAL_SECONDS": REMOVAL_SECONDS,
        "CRASH_AT": point,
    }
    token = house.team_token("red")
    async with service_process("assets", environ) as running:
        client = RpcClient(open_channel(f"127.0.0.1:{running.port}"), lambda: token)
        try:
            with pytest.raises(UnavailableError):
                await doing(Team(client, "red"))
            assert await running.ended() == -signal.SIGKILL
        finally:
            await client.close()


async def upload(team: Team) -> Any:
    return await team.upload(request_id="once", sha256=sha256(PNG))


@pytest.mark.parametrize(
    ("point", "blobs_left", "rows_left"), [("A1", 0, 0), ("A3", 1, 0), ("A4", 1, 1)]
)
async def test_dying_in_an_upload_leaves_a_whole_file_or_none(
    urls: DatabaseUrls, tmp_path: Path, point: str, blobs_left: int, rows_left: int
) -> None:
    blobs = tmp_path / "blobs"
    sweeper = AssetsHouse(urls, blobs.as_uri(), orphan_seconds=0.0)
    await die(sweeper, point, upload)
    assert len(blob_files(blobs)) == blobs_left
    async with opened(sweeper):
        assert await sweeper.rows() == rows_left
        # What is no file's goes with the sweep; what is a file's stays.
        await eventually(lambda: len(blob_files(blobs)) == rows_left)
    async with opened(AssetsHouse(urls, blobs.as_uri())) as house:
        team = house.team("red")
        file = await upload(team)
        assert (await team.download(file.id))[1] == PNG
        assert await house.rows() == 1
        assert len(blob_files(blobs)) == 1
        reserved = len(PNG) * (1 - rows_left)  # of the dead, until it runs out
        assert (await team.storage()).stored_bytes == len(PNG) + reserved


async def test_dying_behind_a_deletion_the_file_is_gone_and_its_blob_follows(
    urls: DatabaseUrls, tmp_path: Path
) -> None:
    blobs = tmp_path / "blobs"
    house = AssetsHouse(urls, blobs.as_uri())
    async with opened(house):
        file = await house.team("red").upload()
    await die(house, "A5", lambda team: team.delete(file.id))
    assert len(blob_files(blobs)) == 1
    async with opened(AssetsHouse(urls, blobs.as_uri())) as later:
        with pytest.raises(NotFoundError):
            await later.team("red").get(file.id)
        with pytest.raises(NotFoundError):
            await later.team("red").delete(file.id)
        await nothing_in(blobs)
