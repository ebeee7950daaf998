"""The assets service over real gRPC: files, references, generated images, jobs, clean-up."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
import urllib3
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contentshop.assets.v1 import assets_pb2, backend_pb2
from contentshop.enqueue.v1 import job_pb2
from libs.common.blobs_open import open_blob_urls
from libs.common.broker import JOB_ENDED, JOB_ENQUEUED
from libs.common.errors import (
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from libs.common.migrations import drift
from services.assets import tables
from services.assets.app import build
from tests.fixtures import images
from tests.support.assets_house import (
    DATABASES,
    PNG,
    AssetsHouse,
    Backend,
    Team,
    all_of,
    blob_files,
    database,
    opened,
    reason_of,
    sha256,
)
from tests.support.databases import sqlite_database
from tests.support.eventually import eventually
from tests.support.seaweed import SeaweedServer

MakeHouse = Callable[..., Awaitable[AssetsHouse]]


@pytest.fixture(params=DATABASES)
async def make_house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeHouse]:
    """Makes one running house with these settings."""
    houses: list[AssetsHouse] = []

    async def make(**changes: Any) -> AssetsHouse:
        urls = database(request.param, request, tmp_path)
        house = AssetsHouse(urls, (tmp_path / "blobs").as_uri(), **changes)
        houses.append(house)
        await house.start()
        return house

    yield make
    for house in houses:
        await house.stop()


@pytest.fixture
async def house(make_house: MakeHouse) -> AssetsHouse:
    return await make_house()


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def red(house: AssetsHouse) -> Team:
    return house.team("red")


@pytest.fixture
def blue(house: AssetsHouse) -> Team:
    return house.team("blue")


@pytest.fixture
def backend(house: AssetsHouse) -> Backend:
    return house.backend()


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


async def read_url(house: AssetsHouse, url: str) -> bytes:
    urls = open_blob_urls(house.settings.blob_url, clock=house.clock, ids=house.ids)
    await urls.start()
    try:
        return await urls.read_all(url, 10_000_000)
    finally:
        await urls.close()


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


async def test_references_are_resolved_in_order(red: Team, backend: Backend) -> None:
    one, two = await red.upload(), await red.upload(images.encoded("WEBP"))
    refs: list[int | str] = [
        two.id,
        one.upload_url,
        two.id,
        f"{one.upload_url}?v=1&sig=a%20b/c?d",
        f"https://shop.example{two.upload_url}",
        f"http://localhost:8080{one.upload_url}?x",
        f"HTTPS://Shop.EXAMPLE{one.upload_url}",
    ]
    found = await backend.resolve("red", *refs)
    wanted = [two.id, one.id, two.id, one.id, two.id, one.id, one.id]
    assert [image.file_id for image in found] == wanted
    assert await backend.resolve("red") == []


NOT_UPLOADS = [
    "",
    "/",
    "/api/uploads/{id}",
    "/api/uploads/{id}/file/",
    "/api/uploads/{id}/file#top",
    "/api/uploads/{id}/file?a#b",
    "/api/uploads/{id}/file?a b",
    "/api/uploads/{id}/file?a\\b",
    "/api/uploads/{id}/file\n",
    "/api/uploads/{id}/file?a\n",
    "/api/uploads//{id}/file",
    "//api/uploads/{id}/file",
    "/api/../api/uploads/{id}/file",
    "/api/uploads/./{id}/file",
    "/api/uploads/%31/file",
    "/api/uploads/{id}%2ffile",
    "/API/uploads/{id}/file",
    "api/uploads/{id}/file",
    "/api/uploads/0{id}/file",
    "/api/uploads/+{id}/file",
    "/api/uploads/-{id}/file",
    "/api/uploads/{id}.0/file",
    "/api/uploads/0/file",
    "/api/uploads/１/file",  # noqa: RUF001 - a digit, but no ASCII one
    "/api/uploads/9223372036854775808/file",
    "/api/uploads/99999999999999999999/file",
    "/api/uploads/{id}/file?" + "x" * 2048,
    "https://other.example/api/uploads/{id}/file",
    "https://shop.example:443/api/uploads/{id}/file",
    "https://shop.example:8080/api/uploads/{id}/file",
    "https://shop.example./api/uploads/{id}/file",
    "https://shop.example@evil.example/api/uploads/{id}/file",
    "https://evil.example@shop.example/api/uploads/{id}/file",
    "https://user:secret@shop.example/api/uploads/{id}/file",
    "https://shop.example\\@evil.example/api/uploads/{id}/file",
    "https://shop.example#@evil.example/api/uploads/{id}/file",
    "https://shop.example?/api/uploads/{id}/file",
    "https:///api/uploads/{id}/file",
    "https:/shop.example/api/uploads/{id}/file",
    "//shop.example/api/uploads/{id}/file",
    "ftp://shop.example/api/uploads/{id}/file",
    "file:///api/uploads/{id}/file",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "http://localhost/api/uploads/{id}/file",
    "http://localhost:80/api/uploads/{id}/file",
    "http://127.0.0.1:8080/api/uploads/{id}/file",
    "http://[::1]:8080/api/uploads/{id}/file",
    "http://2130706433:8080/api/uploads/{id}/file",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254/api/uploads/{id}/file",
    " https://shop.example/api/uploads/{id}/file",
    "https://shop.example/x/../api/uploads/{id}/file",
    "https://shop.example//api/uploads/{id}/file",
    "https://ѕhop.example/api/uploads/{id}/file",  # noqa: RUF001 - not the letter it seems
    "https://xn--hop-ueb.example/api/uploads/{id}/file",
]


async def test_every_bad_reference_is_named(red: Team, blue: Team, backend: Backend) -> None:
    mine, theirs = await red.upload(), await blue.upload()
    urls = [url.replace("{id}", str(mine.id)) for url in NOT_UPLOADS]
    refs: list[int | str] = [mine.id, *urls, theirs.id, theirs.upload_url, 0, -1, 999_999, mine.id]
    with pytest.raises(InvalidArgumentError) as caught:
        await backend.resolve("red", *refs, pin_token="pin-1")
    assert caught.value.reason == "BAD_IMAGE_REFERENCE"
    named = {v.field: v.reason for v in caught.value.violations}
    end = 1 + len(urls)
    assert named == {
        **{f"refs[{i}]": "IMAGE_NOT_AN_UPLOAD" for i in range(1, end)},
        f"refs[{end}]": "IMAGE_NOT_FOUND",
        f"refs[{end + 1}]": "IMAGE_NOT_FOUND",
        f"refs[{end + 2}]": "IMAGE_NOT_AN_UPLOAD",
        f"refs[{end + 3}]": "IMAGE_NOT_AN_UPLOAD",
        f"refs[{end + 4}]": "IMAGE_NOT_FOUND",
    }
    for url in urls:
        assert not url or url not in caught.value.message
    await red.delete(mine.id)  # nothing was pinned


async def test_requests_of_services_are_checked(backend: Backend, red: Team) -> None:
    file = await red.upload()
    many = await backend.resolve("red", *[file.id] * 2000, pin_token="pin-1")
    assert len(many) == 2000
    for team, refs, token in (
        ("red", [file.id] * 2001, ""),
        ("", [file.id], ""),
        ("red,blue", [file.id], ""),
        ("red", [file.id], "x" * 129),
    ):
        with pytest.raises(InvalidArgumentError):
            await backend.resolve(team, *refs, pin_token=token)
    nothing = backend_pb2.ResolveImagesRequest(team="red", refs=[backend_pb2.ImageRef()])
    assert await reason_of(backend.call("ResolveImages", nothing)) == "BAD_IMAGE_REFERENCE"


async def test_two_thousand_bad_references_get_an_answer(backend: Backend) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await backend.resolve("red", *range(1, 2001))
    assert caught.value.reason == "BAD_IMAGE_REFERENCE"
    assert caught.value.message.startswith("2000 ")
    assert [v.field for v in caught.value.violations[:2]] == ["refs[0]", "refs[1]"]


async def test_each_door_takes_its_own_tokens(house: AssetsHouse, red: Team) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        await Backend(red.client).resolve("red", 1)
    assert caught.value.reason == "SERVICE_ONLY"
    with pytest.raises(PermissionDeniedError):
        await Team(house.backend().client, "red").get(1)


async def test_a_file_in_use_is_not_deleted(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    file = await red.upload()
    await backend.resolve("red", file.id, pin_token="pin-1")
    with pytest.raises(FailedPreconditionError) as caught:
        await red.delete(file.id)
    assert caught.value.reason == "FILE_IN_USE"
    await backend.resolve("red", file.id, pin_token="pin-2")
    await house.enqueued("red", 1, "pin-1")
    await house.ended("red", 1, "pin-1")
    assert await reason_of(red.delete(file.id)) == "FILE_IN_USE"  # by the other job
    await house.ended("red", 2, "pin-2", state=job_pb2.JOB_STATE_CANCELED)
    await red.delete(file.id)


async def test_a_pin_expires_unless_its_job_is_known(make_house: MakeHouse) -> None:
    house = await make_house(pin_seconds=0.2)
    red, backend = house.team("red"), house.backend()
    one, two = await red.upload(), await red.upload()
    await backend.resolve("red", one.id, pin_token="pin-1")
    await backend.resolve("red", two.id, pin_token="pin-2")
    await house.enqueued("red", 1, "pin-1")
    await backend.resolve("red", one.id, pin_token="pin-1")  # the worker, later: it still lasts
    await house.enqueued("blue", 9, "pin-2")  # another team's pin of that name

    async def deleted() -> bool:
        try:
            await red.delete(two.id)
        except FailedPreconditionError:
            return False
        return True

    await eventually(deleted)
    assert await reason_of(red.delete(one.id)) == "FILE_IN_USE"
    # A pin that expired comes back to life when the news of its job is late.
    three = await red.upload()
    await backend.resolve("red", three.id, pin_token="pin-3")
    await asyncio.sleep(0.25)
    await house.enqueued("red", 3, "pin-3")
    assert await reason_of(red.delete(three.id)) == "FILE_IN_USE"


async def test_pins_that_expired_long_ago_are_forgotten(house: AssetsHouse, red: Team) -> None:
    file = await red.upload()
    async with house.db.duty() as tx:
        for token, seconds in (("old", -2 * 24 * 3600.0), ("late", -60.0), ("new", 60.0)):
            await tx.execute(
                sa.insert(tables.pins).values(
                    team="red", pin_token=token, file_id=file.id, expires_at=tx.after(seconds)
                )
            )

    async def forgotten() -> bool:
        return await house.count(tables.pins) == 2

    await eventually(forgotten)
    assert await house.count(tables.pins, tables.pins.c.pin_token == "old") == 0


async def rename_table(house: AssetsHouse, old: str, new: str) -> None:
    async with house.db.duty() as tx:
        await tx.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))


async def test_news_waits_for_the_database(tmp_path: Path) -> None:
    house = AssetsHouse(sqlite_database("assets", tmp_path), (tmp_path / "blobs").as_uri())
    async with opened(house):
        await rename_table(house, "job_endings", "away")
        async with asyncio.TaskGroup() as tasks:
            heard = tasks.create_task(house.ended("red", 5))
            await eventually(lambda: house.in_hand() == 1)
            await rename_table(house, "away", "job_endings")
            await heard
        assert house.broker.dead_letters("assets.jobs") == ()
        assert await house.count(tables.job_endings) == 1


async def test_a_pin_and_a_deletion_never_both_win(red: Team, backend: Backend) -> None:
    outcomes = set()
    for turn in range(25):
        file = await red.upload()
        pinned, deleted = await all_of(
            backend.resolve("red", file.id, pin_token=f"pin-{turn}"), red.delete(file.id)
        )
        outcomes.add((type(pinned), type(deleted)))
    assert outcomes <= {(list, FailedPreconditionError), (InvalidArgumentError, type(None))}


async def test_the_end_of_a_job_may_be_heard_first(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    file = await red.upload()
    await backend.resolve("red", file.id, pin_token="pin-1")
    await house.ended("red", 1, "pin-1")
    await house.enqueued("red", 1, "pin-1")
    assert await house.count(tables.pins) == 0
    # Even where the pin came back in between.
    await backend.resolve("red", file.id, pin_token="pin-1")
    await house.enqueued("red", 1, "pin-1")
    assert await house.count(tables.pins) == 0
    await red.delete(file.id)


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
    assert await reason_of(zips.store(key, data, team="blue")) == "BAD_BLOB_KEY"
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
    fresh = await zips.begin(images.zip_file())
    orphan = await zips.begin(images.zip_file())
    foreign = blobs / "somebody" / "elses.txt"
    foreign.parent.mkdir()
    foreign.write_text("not ours")
    old = house.clock.now().timestamp() - 10
    for path in blob_files(blobs):
        if not path.match(fresh):
            os.utime(path, (old, old))
    data = images.zip_file()
    assert await reason_of(zips.store(orphan, data)) == "BLOB_INCOMPLETE"  # about to be swept
    await eventually(lambda: not (blobs / orphan).exists(), what="the orphan is gone")
    assert (blobs / fresh).exists()
    assert foreign.exists()
    assert (await red.download(file.id))[0] == file


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


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xffgarbage",
        b"",
        b"\x08\x02\x10\x05\x1a\x03red",  # schema version 2
        b"\x08\x01\x1a\x03red",  # no job
        b"\x08\x01\x10\x05\x1a\x05a,b,c",  # no team
        b"\x08\x01\x10\x05\x1a\x03red\x28\x02",  # ended, and yet RUNNING
    ],
)
async def test_poison_goes_to_the_dead_letters(house: AssetsHouse, body: bytes) -> None:
    for number, key in enumerate((JOB_ENQUEUED, JOB_ENDED), start=1):
        await house.say(key, body)
        assert len(house.broker.dead_letters("assets.jobs")) == number
    assert await house.count(tables.job_endings) == 0


async def test_the_schema_is_that_of_the_tables(house: AssetsHouse) -> None:
    assert drift(house.urls.owner, tables.metadata) == []


@pytest.mark.real
@pytest.mark.parametrize("make_house", ["postgres"], indirect=True)
async def test_the_database_itself_keeps_teams_apart(house: AssetsHouse) -> None:
    red, backend = house.team("red"), house.backend()
    file = await red.upload(request_id="key-1", sha256=sha256(PNG))
    await backend.resolve("red", file.id, pin_token="pin-1")
    await backend.store("red", 5, 1)
    everything = (tables.files, tables.pins, tables.idempotency_keys, tables.job_endings)
    for table in everything:
        query = sa.select(sa.func.count()).select_from(table)
        async with house.db.read("red") as tx:
            assert await tx.scalar(query) > 0
        for teams in (["blue"], [], ["blue", "green"], ["Red"]):
            async with house.db.read(*teams) as tx:
                assert await tx.scalar(query) == 0
    async with house.db.transaction("blue") as tx:
        changed = await tx.execute(sa.update(tables.files).values(team="blue"))
        assert changed.rowcount == 0
        with pytest.raises(sa.exc.ProgrammingError):
            await tx.execute(
                sa.insert(tables.job_endings).values(team="red", job_id=99, ended_at=None)
            )
    assert (await red.get(file.id)).id == file.id


async def test_it_is_ready_without_a_broker(tmp_path: Path) -> None:
    house = AssetsHouse(sqlite_database("assets", tmp_path), (tmp_path / "blobs").as_uri())
    house.app = build(replace(house.settings, broker_url="amqp://127.0.0.1:1"))
    async with opened(house):
        stub = health_pb2_grpc.HealthStub(house.channel())
        request = health_pb2.HealthCheckRequest(service="contentshop.assets.v1.AssetsService")

        async def serving() -> bool:
            answer = await stub.Check(request)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        assert await serving()
        await house.team("red").upload()
        for path in sorted((tmp_path / "blobs").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "blobs").rmdir()

        async def away() -> bool:
            return not await serving()

        await eventually(away)
