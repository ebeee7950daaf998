"""Archives of batches and folders: what goes in, under which names, and when there is a new one."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from typing import Any

import pytest

from contentshop.packager.v1 import packager_pb2 as pb
from libs.common.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from tests.integration.packager.house import (
    FAILED,
    FINISHED_MS,
    PENDING,
    READY,
    House,
    check_archive,
    image_bytes,
)
from tests.support.fleet_team import patiently
from tests.support.zips import read_strictly


def _read(data: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The images of a zip by name, and its manifest."""
    assert read_strictly(data).entries[-1].name == "manifest.json"
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        images = {name: found.read(name) for name in found.namelist()[:-1]}
        return images, json.loads(found.read("manifest.json"))


async def test_a_batch_is_a_folder_per_variant(house: House) -> None:
    variants = [("Größe L", 2), ("", 1), ("../../etc", 1), ("größe l", 1), ("nothing", 0)]
    made = await house.batch(5, variants)
    team = house.team()
    archive = await team.ask(batch_id=5)
    assert (archive.batch_id, archive.job_id, archive.folder_id) == (5, 0, 0)
    assert archive.filename == f"batch-5-{FINISHED_MS}.zip"
    assert archive.image_count == 5
    ready = await team.settled(archive.id)
    assert ready.state == READY
    told, data = await team.download(batch_id=5)
    assert told == ready
    images, facts = _read(data)
    folders = ["Groe-L", "variant-2", "etc", "groe-l-4"]
    names = [f"{folders[0]}/image-1.png", f"{folders[0]}/image-2.png"]
    names += [f"{folder}/image-1.png" for folder in folders[1:]]
    assert list(images) == names
    assert list(images.values()) == [data for variant in made for data in variant]
    assert (facts["batch_id"], facts["name"]) == ("5", "Summer")
    assert [row["file_name"] for row in facts["images"]] == names
    assert [(row["variant_index"], row["variant"]) for row in facts["images"]] == [
        (1, "Größe L"),
        (1, "Größe L"),
        (2, ""),
        (3, "../../etc"),
        (4, "größe l"),
    ]
    stored = house.assets.stored[-1]
    assert (stored.job_id, stored.batch_id, stored.folder_id) == (0, 5, 0)
    assert not house.enqueue.reports  # a batch keeps no word of its archive


async def test_one_archive_per_content_of_a_batch(house: House) -> None:
    await house.batch(5, [("a", 1), ("b", 0)])
    team = house.team()
    first = await team.ask(batch_id=5)
    again = await asyncio.gather(*(patiently(lambda: team.ask(batch_id=5)) for _ in range(10)))
    assert {archive.id for archive in again} == {first.id}
    ready = await team.settled(first.id)
    assert await team.ask("r1", batch_id=5) == ready
    # The failed variant was retried.
    await house.batch(5, [("a", 1), ("b", 1)], finish_time_ms=FINISHED_MS + 1)
    second = await team.ask("r2", batch_id=5)
    assert second.id != first.id
    assert second.filename == f"batch-5-{FINISHED_MS + 1}.zip"
    assert (await team.settled(second.id)).image_count == 2
    assert await team.ask("r1", batch_id=5) == ready  # a replay: what it was answered with
    assert (await team.get(batch_id=5)).id == second.id
    assert len(house.assets.archives()) == 2
    # And back: the newest is the one that was asked for last.
    await house.batch(5, [("a", 1), ("b", 0)])
    assert (await team.ask(batch_id=5)).id == first.id
    assert (await team.get(batch_id=5)).id == first.id


async def test_a_batch_that_lives_or_made_nothing_has_no_archive(house: House) -> None:
    await house.batch(5)
    house.enqueue.batches["red", 5].ended = False
    await house.batch(6, [("a", 0), ("b", 0)])
    team = house.team()
    assert await _refusal(team.ask(batch_id=5)) == "ARCHIVE_NOT_READY"
    assert await _refusal(team.ask(batch_id=6)) == "ARCHIVE_NOT_APPLICABLE"
    for source in ({"batch_id": 999}, {"folder_id": 999}):
        with pytest.raises(NotFoundError):
            await team.ask(**source)
        with pytest.raises(NotFoundError):
            await team.get(**source)


async def test_a_folder_is_zipped_as_it_stands(house: House) -> None:
    made = await house.folder(3, 3)
    team = house.team()
    archive = await team.ask(folder_id=3)
    assert (archive.folder_id, archive.job_id, archive.batch_id) == (3, 0, 0)
    assert archive.filename.startswith("folder-3-")
    await team.settled(archive.id)
    images, facts = _read((await team.download(folder_id=3))[1])
    assert list(images) == ["image-1.png", "image-2.png", "image-3.png"]
    assert list(images.values()) == made
    assert (facts["folder_id"], facts["name"]) == ("3", "Best of")
    assert "variant" not in facts["images"][0]
    assert house.assets.stored[-1].folder_id == 3

    same = await team.ask(folder_id=3)
    assert same.id == archive.id
    house.assets.folders["red", 3].file_ids.pop()
    fewer = await team.ask(folder_id=3)
    assert fewer.id != archive.id
    assert (await team.settled(fewer.id)).image_count == 2
    fresh = await team.ask("r1", folder_id=3)  # a new one for each request_id
    assert fresh.id not in {archive.id, fewer.id}
    assert (await team.ask("r1", folder_id=3)).id == fresh.id
    with pytest.raises(AlreadyExistsError):
        await team.ask("r1", folder_id=4)


async def test_folders_that_cannot_be_zipped(house: House) -> None:
    await house.folder(3, 0)
    team = house.team()
    assert await _refusal(team.ask(folder_id=3)) == "ARCHIVE_NOT_APPLICABLE"
    house.assets.faults.errors["ListFolderImages"] = [
        FailedPreconditionError("too many", reason="FOLDER_TOO_LARGE")
    ]
    assert await _refusal(team.ask(folder_id=3)) == "FOLDER_TOO_LARGE"


async def test_archives_of_other_teams_are_unknown(house: House) -> None:
    await house.batch(5)
    await house.folder(3)
    red, blue = house.team(), house.team("blue")
    for source in ({"batch_id": 5}, {"folder_id": 3}):
        mine = await red.settled((await red.ask(**source)).id)
        for key in (source, {"archive_id": mine.id}):
            for look in (blue.get(**key), blue.download(**key), _first(blue.watch(**key))):
                with pytest.raises(NotFoundError):
                    await look
        with pytest.raises(NotFoundError):
            await blue.ask(**source)
    # The same numbers may be another team's own.
    await house.batch(5, [("x", 1)], team="blue")
    assert (await blue.ask(batch_id=5)).id not in {0, (await red.get(batch_id=5)).id}


async def test_a_zip_too_large_for_the_store_fails_at_once(house: House) -> None:
    await house.batch(5)
    for file in house.assets.files.values():
        file.size = 2 * 1024**3
    team = house.team()
    failed = await team.settled((await team.ask(batch_id=5)).id)
    assert (failed.state, failed.error_reason) == (FAILED, "ARCHIVE_TOO_LARGE")
    assert "5 GiB" in failed.error_message
    assert house.assets.calls.count("ResolveImages") == 1
    assert "BeginArchive" not in house.assets.calls


async def test_a_thousand_images_are_resolved_in_two_calls(house: House) -> None:
    house.enqueue.batches["red", 5] = await _large_batch(house, variants=101, images=10)
    team = house.team()
    ready = await team.settled((await team.ask(batch_id=5)).id)
    assert (ready.state, ready.image_count) == (READY, 1010)
    assert house.assets.calls.count("ResolveImages") == 2
    images, facts = _read((await team.download(batch_id=5))[1])
    assert list(images)[-1] == "v101/image-10.png"
    assert len(images) == len(facts["images"]) == 1010


@pytest.mark.parametrize("request_ids", [("", ""), ("r1", "r1"), ("r1", "r2")])
async def test_an_archive_whose_file_is_gone_is_built_again(
    house: House, request_ids: tuple[str, str]
) -> None:
    images = await house.job(7, 2)
    team = house.team()
    await team.create(7, request_ids[0])
    ready = await team.ended(7)
    del house.assets.files[ready.file_id]
    with pytest.raises(NotFoundError):
        await team.download(job_id=7)
    again = await team.create(7, request_ids[1])
    assert (again.id, again.state, again.file_id) == (ready.id, PENDING, 0)
    rebuilt = await team.ended(7)
    assert rebuilt.file_id != ready.file_id
    check_archive((await team.download(job_id=7))[1], 7, images)


async def test_a_batch_archive_whose_file_is_gone_is_built_again(house: House) -> None:
    await house.batch(5)
    team = house.team()
    ready = await team.settled((await team.ask(batch_id=5)).id)
    del house.assets.files[ready.file_id]
    again = await asyncio.gather(*(team.ask(batch_id=5) for _ in range(5)))
    assert {archive.id for archive in again} == {ready.id}
    assert (await team.settled(ready.id)).file_id != ready.file_id
    assert len(house.assets.archives()) == 1


async def test_ready_is_not_said_unseen(house: House) -> None:
    await house.job(7, 2)
    team = house.team()
    await team.create(7)
    await team.ended(7)
    house.assets.faults.errors["ResolveArchive"] = [UnavailableError("away")]
    with pytest.raises(UnavailableError):
        await team.create(7)
    assert (await team.create(7)).state == READY


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateArchiveRequest(batch_id=-1),
        pb.CreateArchiveRequest(folder_id=0),
        pb.WatchArchiveRequest(),
        pb.WatchArchiveRequest(batch_id=-1),
    ],
    ids=["create-negative", "create-zero", "watch-nothing", "watch-negative"],
)
async def test_wrong_sources_are_named(house: House, request_: Any) -> None:
    team = house.team()
    watched = isinstance(request_, pb.WatchArchiveRequest)
    call = (
        _first(team.client.stream(team.stub.WatchArchive, request_))
        if watched
        else team.call("CreateArchive", request_)
    )
    with pytest.raises(InvalidArgumentError) as raised:
        await call
    assert len(raised.value.violations) == 1


async def _large_batch(house: House, *, variants: int, images: int) -> Any:
    await house.batch(5, [("", 1)])
    answer = house.enqueue.batches["red", 5]
    answer.ClearField("variants")
    stored = await house.assets.add_image("red", 1, image_bytes(5001, 1, 300))
    for number in range(1, variants + 1):
        part = answer.variants.add(variant_index=number, variant=f"v{number}")
        for index in range(1, images + 1):
            file_id = number * 100 + index
            house.assets.files[file_id] = stored  # its bytes are the same; its id is what counts
            part.outputs.add(index=index, file_id=file_id)
    return answer


async def _first(stream: Any) -> Any:
    async for message in stream:
        return message
    return None


async def _refusal(call: Any) -> str:
    with pytest.raises(FailedPreconditionError) as raised:
        await call
    return raised.value.reason
