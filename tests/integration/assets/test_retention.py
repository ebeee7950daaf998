"""What is too old goes in bounded steps, and nothing that is in use goes at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2
from libs.common.retention import DAY_SECONDS, Retention, Rule
from services.assets import tables
from services.assets.domain import FileKind
from services.assets.store import retention
from tests.support.assets_house import (
    PNG,
    AssetsHouse,
    Backend,
    MakeHouse,
    Team,
    blob_files,
    reason_of,
    sha256,
)
from tests.support.eventually import eventually

DAYS = {"retention_generated_days": 10.0, "retention_keys_days": 10.0, "retention_seconds": 0.1}


async def age(house: AssetsHouse, column: sa.Column[Any], days: float) -> None:
    """Sets all rows back."""
    async with house.db.duty() as tx:
        await tx.execute(
            sa.update(column.table).values({column.name: tx.after(-days * DAY_SECONDS)})
        )


async def made(house: AssetsHouse, job_id: int, team: str = "red") -> int:
    """An output of an ended job."""
    file_id: int = (await house.backend().store(team, job_id, 1)).image.file_id
    await house.ended(team, job_id, outputs=[file_id])
    return file_id


async def removed(house: AssetsHouse, seconds: float, limit: int = 100) -> int:
    """One step over generated files older than that."""
    async with house.db.duty() as tx:
        return await retention.delete_old(
            tx, FileKind.GENERATED, seconds, limit, removal_seconds=0.0
        )


async def test_old_images_go_and_give_their_bytes_back(make_house: MakeHouse, blobs: Path) -> None:
    house = await make_house(**DAYS)
    red = house.team("red")
    upload = await red.upload()
    old = [await made(house, job_id) for job_id in (5, 6)]
    theirs = await made(house, 5, "blue")
    await age(house, tables.files.c.created_at, 10.1)
    fresh = await made(house, 7)

    async def gone() -> bool:
        return await house.rows() == 2 == len(blob_files(blobs))

    await eventually(gone)
    assert [file.id for file in await red.files()] == [fresh, upload.id]
    assert [await reason_of(red.get(file_id)) for file_id in old] == ["RESOURCE_NOT_FOUND"] * 2
    assert await reason_of(house.team("blue").get(theirs)) == "RESOURCE_NOT_FOUND"
    sizes = [file.size_bytes for file in await red.files()]
    assert (await red.storage()).stored_bytes == sum(sizes)
    assert (await house.team("blue").storage()).stored_bytes == 0


async def test_what_is_in_use_stays(house: AssetsHouse, red: Team, backend: Backend) -> None:
    pinned, kept, shown, expired, free = [await made(house, job_id) for job_id in range(5, 10)]
    live = (await backend.store("red", 99, 1)).image.file_id
    await backend.resolve("red", pinned, pin_token="a live job")
    await house.enqueued("red", 50, "a live job")
    await backend.resolve("red", expired, pin_token="never enqueued")
    async with house.db.duty() as tx:
        await tx.execute(
            sa.update(tables.pins)
            .where(tables.pins.c.expires_at.is_not(None))
            .values(expires_at=tx.after(-1.0))
        )
        await tx.execute(
            sa.insert(tables.variants).values(
                team="red",
                variant_id="v",
                product="",
                title="",
                image_file_id=shown,
                updated_at=tx.now(),
            )
        )
    content = assets_pb2.MoodboardContent(name="mood", positive_file_ids=[kept])
    await red.call("CreateMoodboard", assets_pb2.CreateMoodboardRequest(content=content))
    assert await removed(house, -1.0) == 2
    assert sorted([file.id for file in await red.files()]) == sorted([pinned, kept, shown])
    assert (await red.get(live)).id == live
    assert {await reason_of(red.get(gone)) for gone in (expired, free)} == {"RESOURCE_NOT_FOUND"}
    await house.ended("red", 50, "a live job")
    assert await removed(house, -1.0) == 1
    assert await reason_of(red.get(pinned)) == "RESOURCE_NOT_FOUND"


async def test_folders_of_batches_go_when_they_are_old_and_empty(make_house: MakeHouse) -> None:
    house = await make_house(retention_generated_days=0.0, retention_keys_days=0.0)
    red = house.team("red")
    await red.call("CreateFolder", assets_pb2.CreateFolderRequest(name="Mine"))
    await made(house, 5)  # into the default folder
    for job_id, batch_id in ((6, 1), (7, 2), (8, 3)):
        file_id = (await house.backend().store("red", job_id, 1)).image.file_id
        said: dict[str, Any] = {"batch_id": batch_id, "variant_index": 1}
        await house.ended("red", job_id, outputs=[file_id], **said)
        if batch_id != 2:
            await red.call("DeleteFile", assets_pb2.DeleteFileRequest(file_id=file_id))
        if batch_id != 3:
            await age(house, tables.folders.c.created_at, 10.1)
    file_id = (await house.backend().store("red", 9, 1)).image.file_id

    async def step(limit: int) -> int:
        async with house.db.duty() as tx:
            return await retention.remove_folders(tx, 10 * DAY_SECONDS, limit)

    async def batches() -> list[int]:
        found = await red.call("ListFolders", assets_pb2.ListFoldersRequest())
        return [folder.batch_id for folder in found.folders]

    assert [await step(1) for _ in range(3)] == [1, 1, 0]
    assert await batches() == [3, 3, 2, 2, 0, 0]
    await house.ended("red", 9, outputs=[file_id], batch_id=1, variant_index=1)
    assert await batches() == [1, 1, 3, 3, 2, 2, 0, 0]


async def test_steps_are_bounded_and_go_on_where_they_were(house: AssetsHouse) -> None:
    for job_id in range(5, 10):
        await made(house, job_id)
    assert [await removed(house, -1.0, limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_a_round_says_whether_there_is_more(house: AssetsHouse) -> None:
    for job_id in range(5, 8):
        await made(house, job_id)
    await age(house, tables.job_endings.c.ended_at, 2.0)
    rule = Rule("endings", 1.0, retention.remove_endings, step_rows=2)
    never = Rule("keys", 0, retention.remove_keys)
    woken: list[int] = []
    rounds = Retention(house.db, house.clock, [rule, never], removed=lambda: woken.append(1))
    assert [await rounds.round() for _ in range(3)] == [True, False, False]
    assert len(woken) == 2
    assert await house.count(tables.job_endings) == 0


@pytest.mark.real
@pytest.mark.parametrize("make_house", ["postgres"], indirect=True)
async def test_who_is_about_to_pin_a_file_keeps_it(house: AssetsHouse) -> None:
    file_id = await made(house, 5)
    async with house.db.transaction("red") as tx:
        held = sa.select(tables.files.c.id).where(tables.files.c.id == file_id)
        await tx.execute(held.with_for_update(read=True))
        assert await removed(house, -1.0) == 0  # passed by, not waited for
    assert await removed(house, -1.0) == 1


async def test_old_keys_are_forgotten(make_house: MakeHouse) -> None:
    house = await make_house(**DAYS)
    red = house.team("red")
    said: dict[str, Any] = {"request_id": "one", "sha256": sha256(PNG)}
    first = await red.upload(**said)
    await red.upload(**said | {"request_id": "two"})
    async with house.db.duty() as tx:
        await tx.execute(
            sa.update(tables.idempotency_keys)
            .where(tables.idempotency_keys.c.request_id == "one")
            .values(created_at=tx.after(-10.1 * DAY_SECONDS))
        )

    async def forgotten() -> bool:
        return await house.count(tables.idempotency_keys) == 1

    await eventually(forgotten)
    assert (await red.upload(**said)).id != first.id


async def test_old_archives_go_and_images_stay_where_they_are_kept(
    make_house: MakeHouse, blobs: Path
) -> None:
    house = await make_house(
        retention_generated_days=0.0, retention_archives_days=10.0, retention_seconds=0.1
    )
    image = await made(house, 5)
    archive = await house.archive("red", 5)
    await age(house, tables.files.c.created_at, 11)

    async def gone() -> bool:
        return await house.rows() == 1 == len(blob_files(blobs))

    await eventually(gone)
    red = house.team("red")
    assert [file.id for file in await red.files()] == [image]
    assert await reason_of(red.get(archive)) == "RESOURCE_NOT_FOUND"
