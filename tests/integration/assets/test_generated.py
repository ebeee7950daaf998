"""Generated images: one per slot, labelled, visible with the end of their job."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2
from libs.common.errors import (
    FailedPreconditionError,
)
from services.assets import tables
from tests.fixtures import images
from tests.support.assets_house import (
    AssetsHouse,
    Backend,
    MakeHouse,
    Team,
    all_of,
    blob_files,
    read_url,
    reason_of,
    sha256,
)
from tests.support.eventually import eventually


async def test_outputs_become_visible_with_the_end_of_their_job(
    house: AssetsHouse, red: Team, backend: Backend, blobs: Path
) -> None:
    stored = [await backend.store("red", 5, index) for index in (1, 2, 3)]
    ids = [answer.image.file_id for answer in stored]
    assert await red.files() == []
    assert await red.files(job_id=5) == []
    shown = await red.get(ids[0])  # by id, as watchers of the job learn it
    assert (shown.kind, shown.job_id, shown.image_index) == (assets_pb2.FILE_KIND_GENERATED, 5, 1)
    assert (shown.filename, shown.model) == ("job-5-image-1.png", "model-1")
    assert await reason_of(red.delete(ids[0])) == "FILE_IN_USE"
    for _ in range(2):  # at least once
        await house.ended("red", 5, outputs=ids[:2])
        assert [file.id for file in await red.files()] == [ids[1], ids[0]]
    assert [file.id for file in await red.files(job_id=5)] == [ids[1], ids[0]]
    assert await red.files(job_id=6) == []
    assert await red.files(kind=assets_pb2.FILE_KIND_UPLOAD) == []
    assert await reason_of(red.get(ids[2])) == "RESOURCE_NOT_FOUND"
    await eventually(lambda: len(blob_files(blobs)) == 2)
    async with house.db.read_all() as tx:
        kept = (await tx.execute(sa.select(tables.files))).all()
    assert all(row.source_task_id == "task-1" and row.recorded_at for row in kept)
    await red.delete(ids[0])
    assert await house.team("blue").files() == []


async def test_another_jobs_files_are_not_recorded(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    upload = await red.upload()
    other = (await backend.store("red", 6, 1)).image.file_id
    theirs = (await backend.store("blue", 5, 1)).image.file_id
    await house.ended("red", 5, outputs=[upload.id, other, theirs, 999_999])
    assert await red.files() == [upload]
    assert await house.team("blue").files() == []
    assert (await red.get(other)).id == other


async def test_a_generated_image_says_what_it_is(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    for index, kind in enumerate(("PNG", "JPEG", "WEBP"), start=1):
        data = images.DIRTY[kind]()
        answer = await backend.store("red", 5, index, data, preview=index == 2)
        assert not answer.already_stored
        _, stored = await red.download(answer.image.file_id)
        assert answer.image.sha256 == sha256(stored)
        assert answer.image.crc32 == zlib.crc32(stored)
        assert answer.image.size_bytes == len(stored)
        assert b"trainedAlgorithmicMedia" in stored
        assert (b"Preview" in stored) == (index == 2)
        assert images.XMP_MARK not in stored
        assert await read_url(house, answer.image.blob_url) == stored


async def test_the_first_write_of_a_slot_wins(red: Team, backend: Backend, blobs: Path) -> None:
    pictures = [images.encoded("PNG", images.picture(10 + n, 10)) for n in range(20)]
    answers = await all_of(*(backend.store("red", 5, 1, data) for data in pictures))
    assert len({answer.image.file_id for answer in answers}) == 1
    assert len({answer.image.sha256 for answer in answers}) == 1
    assert [answer.already_stored for answer in answers].count(False) == 1
    assert len(blob_files(blobs)) == 1
    again = await backend.store("red", 5, 1, b"not even an image")
    assert (again.already_stored, again.image) == (True, answers[0].image)
    assert not (await backend.store("red", 5, 2)).already_stored
    assert not (await backend.store("red", 6, 1)).already_stored
    assert not (await backend.store("blue", 5, 1)).already_stored
    _, stored = await red.download(again.image.file_id)
    assert sha256(stored) == again.image.sha256


async def test_an_ended_job_takes_no_more_images(
    house: AssetsHouse, backend: Backend, blobs: Path
) -> None:
    first = await backend.store("red", 5, 1)
    await house.ended("red", 5, outputs=[first.image.file_id])
    for index in (1, 2):
        with pytest.raises(FailedPreconditionError) as caught:
            await backend.store("red", 5, index)
        assert caught.value.reason == "JOB_ENDED"
    await house.ended("red", 8)  # never heard of
    assert await reason_of(backend.store("red", 8, 1)) == "JOB_ENDED"
    assert not (await backend.store("blue", 8, 1)).already_stored
    await eventually(lambda: len(blob_files(blobs)) == 2)


async def test_images_stored_while_their_job_ends_do_not_stay(
    house: AssetsHouse, backend: Backend, blobs: Path
) -> None:
    await all_of(*(backend.store("red", 5, index) for index in range(1, 11)), house.ended("red", 5))

    async def none_left() -> bool:
        return await house.rows() == 0 and not blob_files(blobs)

    await eventually(none_left)


async def test_a_large_image_is_spooled(make_house: MakeHouse, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    house = await make_house(spool_bytes=1000, spool_folder=str(spool))
    red, backend = house.team("red"), house.backend()
    data = images.encoded("PNG", images.picture(700, 700), compress_level=0)
    answer = await backend.store("red", 5, 1, data)
    _, stored = await red.download(answer.image.file_id)
    assert sha256(stored) == answer.image.sha256
    assert await reason_of(backend.store("red", 5, 2, data[:-1])) == "IMAGE_CORRUPT"
    assert await reason_of(backend.store("red", 5, 2, data, size_bytes=len(data) - 1)) == (
        "FILE_TOO_LARGE"
    )
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"sha256": sha256(b"other")}, "CHECKSUM_MISMATCH"),
        ({"sha256": ""}, "INVALID_ARGUMENT"),
        ({"team": ""}, "INVALID_ARGUMENT"),
        ({"team": "a,b"}, "INVALID_ARGUMENT"),
        ({"job_id": 0}, "INVALID_ARGUMENT"),
        ({"image_index": 0}, "INVALID_ARGUMENT"),
        ({"attempt": -1}, "INVALID_ARGUMENT"),
        ({"model": "x" * 129}, "INVALID_ARGUMENT"),
        ({"size_bytes": 500 * 1024 * 1024 + 1}, "FILE_TOO_LARGE"),
        ({"size_bytes": 0}, "EMPTY_FILE"),
    ],
)
async def test_wrong_images_are_refused(
    backend: Backend, blobs: Path, said: dict[str, Any], reason: str
) -> None:
    values: dict[str, Any] = {"team": "red", "job_id": 5, "index": 1} | {
        ("index" if key == "image_index" else key): value for key, value in said.items()
    }
    assert await reason_of(backend.store(**values)) == reason
    assert blob_files(blobs) == []


async def test_broken_images_are_refused(backend: Backend, blobs: Path) -> None:
    assert await reason_of(backend.store("red", 5, 1, images.HTML)) == "UNSUPPORTED_IMAGE_TYPE"
    assert await reason_of(backend.store("red", 5, 1, images.png_bomb(9400))) == "IMAGE_TOO_LARGE"
    assert blob_files(blobs) == []
