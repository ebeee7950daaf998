"""Archives: written by blob_url, made a file; what never becomes one is swept."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2, backend_pb2
from libs.common.blobs_open import open_blob_urls
from libs.common.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)
from services.assets import tables
from tests.fixtures import images
from tests.support.assets_house import (
    AssetsHouse,
    MakeHouse,
    Team,
    all_of,
    blob_files,
    read_url,
    reason_of,
    sha256,
)
from tests.support.eventually import eventually


class Zips:
    """What the packager does with assets."""

    def __init__(self, house: AssetsHouse) -> None:
        self.backend = house.backend("packager")
        self.house = house

    async def begin(self, data: bytes, *, write: bool = True) -> str:
        request = backend_pb2.BeginArchiveRequest(team="red", size_bytes=len(data))
        begun: backend_pb2.BeginArchiveResponse = await self.backend.call("BeginArchive", request)
        if write:
            house = self.house
            urls = open_blob_urls(house.settings.blob_url, clock=house.clock, ids=house.ids)
            await urls.start()
            await urls.write(begun.write_url, len(data), [data])
            await urls.close()
        return begun.blob_key

    async def store(self, key: str, data: bytes, **changes: Any) -> int:
        values: dict[str, Any] = {
            "team": "red",
            "blob_key": key,
            "filename": "generation-5-1700000000000.zip",
            "size_bytes": len(data),
            "sha256": sha256(data),
            "crc32": zlib.crc32(data),
            "job_id": 5,
        }
        request = backend_pb2.StoreArchiveRequest(**(values | changes))
        file_id: int = (await self.backend.call("StoreArchive", request)).file_id
        return file_id

    async def resolve(self, file_id: int, team: str = "red") -> backend_pb2.ResolveArchiveResponse:
        request = backend_pb2.ResolveArchiveRequest(team=team, file_id=file_id)
        response: backend_pb2.ResolveArchiveResponse = await self.backend.call(
            "ResolveArchive", request
        )
        return response


async def test_a_zip_says_of_which_batch_it_is(house: AssetsHouse, red: Team) -> None:
    zips = Zips(house)
    data = images.zip_file()
    await zips.store(await zips.begin(data), data, job_id=0, batch_id=8)
    (file,) = await red.files(kind=assets_pb2.FILE_KIND_ARCHIVE)
    assert (file.job_id, file.provenance.batch_id) == (0, 8)
    with pytest.raises(InvalidArgumentError) as raised:
        await zips.store(await zips.begin(data), data, job_id=0, batch_id=-1)
    assert [violation.field for violation in raised.value.violations] == ["batch_id"]


async def test_a_written_zip_becomes_a_file(house: AssetsHouse, red: Team) -> None:
    zips = Zips(house)
    data = images.zip_file()
    key = await zips.begin(data)
    file_id, again = await zips.store(key, data), await zips.store(key, data)
    assert file_id == again
    assert set(await all_of(*(zips.store(key, data) for _ in range(5)))) == {file_id}
    archive = await zips.resolve(file_id)
    assert archive.filename == "generation-5-1700000000000.zip"
    assert (archive.size_bytes, archive.sha256) == (len(data), sha256(data))
    assert await read_url(house, archive.blob_url) == data
    (file,) = await red.files(kind=assets_pb2.FILE_KIND_ARCHIVE)
    assert (file.id, file.job_id, file.content_type) == (file_id, 5, "application/zip")
    assert file.upload_url == ""
    assert (await red.download(file_id))[1] == data
    with pytest.raises(InvalidArgumentError):  # no image
        await zips.backend.resolve("red", file_id)
    photo = await red.upload()
    for team, wrong in (("red", photo.id), ("blue", file_id), ("red", 999_999)):
        with pytest.raises(NotFoundError):
            await zips.resolve(wrong, team)
    await red.delete(file_id)
    with pytest.raises((NotFoundError, FailedPreconditionError)):
        await zips.store(key, data)


async def test_an_unwritten_zip_does_not(house: AssetsHouse, red: Team) -> None:
    zips = Zips(house)
    data = images.zip_file()
    unwritten = await zips.begin(data, write=False)
    assert await reason_of(zips.store(unwritten, data)) == "BLOB_INCOMPLETE"
    key = await zips.begin(data)
    assert await reason_of(zips.store(key, data + b"x")) == "BLOB_INCOMPLETE"
    with pytest.raises(InvalidArgumentError) as caught:
        await zips.store(key, data, team="blue")
    assert caught.value.reason == "BAD_BLOB_KEY"
    assert [violation.field for violation in caught.value.violations] == ["blob_key"]
    await red.upload()
    async with house.db.read_all() as tx:
        of_upload = await tx.scalar(sa.select(tables.files.c.blob_key))
    for wrong in (of_upload, "../x", key + "x", key.removesuffix(".zip"), ""):
        with pytest.raises(InvalidArgumentError):
            await zips.store(wrong, data)
    for size in (0, -1, 5 * 1024**3 + 1):
        request = backend_pb2.BeginArchiveRequest(team="red", size_bytes=size)
        with pytest.raises(InvalidArgumentError):
            await zips.backend.call("BeginArchive", request)


async def test_blobs_without_a_file_are_swept(make_house: MakeHouse, blobs: Path) -> None:
    house = await make_house(orphan_seconds=3.0, sweep_seconds=0.1)
    red, zips = house.team("red"), Zips(house)
    file = await red.upload()
    orphan = await zips.begin(images.zip_file())
    fresh = await zips.begin(images.zip_file())
    foreign = blobs / "somebody" / "elses.txt"
    foreign.parent.mkdir()
    foreign.write_text("not ours")
    now = house.clock.now().timestamp()
    for path in blob_files(blobs):
        changed = now + 60 if path.match(fresh) else now - 10
        os.utime(path, (changed, changed))
    data = images.zip_file()
    assert await reason_of(zips.store(orphan, data)) == "BLOB_INCOMPLETE"  # about to be swept
    await eventually(lambda: not (blobs / orphan).exists(), what="the orphan is gone")
    assert (blobs / fresh).exists()
    assert foreign.exists()
    assert (await red.download(file.id))[0] == file
