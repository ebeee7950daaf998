"""CreateUpload, a PUT of any HTTP client, CompleteUpload: what UploadFile would have stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import urllib3

from contentshop.assets.v1 import assets_pb2
from services.assets import tables
from services.assets.domain import PendingUpload, raw_key
from services.assets.usecases.completing import CompleteUpload
from tests.fixtures import images
from tests.support.assets_house import (
    DATABASES,
    PNG,
    AssetsHouse,
    MakeHouse,
    Team,
    all_of,
    database,
    reason_of,
    sha256,
)
from tests.support.eventually import eventually
from tests.support.seaweed import SeaweedServer

TAKEN, FORBIDDEN = 200, 403


@pytest.fixture(params=DATABASES)
async def make_s3_house(
    request: pytest.FixtureRequest, seaweed: SeaweedServer, tmp_path: Path
) -> AsyncIterator[MakeHouse]:
    """As `make_house`, its blobs in S3."""
    houses: list[AssetsHouse] = []

    async def make(**changes: Any) -> AssetsHouse:
        house = AssetsHouse(
            database(request.param, request, tmp_path),
            seaweed.blob_url(),
            blob_access_key=seaweed.access_key,
            blob_secret_key=seaweed.secret_key,
            **changes,
        )
        houses.append(house)
        await house.start()
        return house

    yield make
    for house in houses:
        await house.stop()


@pytest.fixture
async def s3_house(make_s3_house: MakeHouse) -> AssetsHouse:
    return await make_s3_house()


async def create(team: Team, data: bytes = PNG, **said: Any) -> assets_pb2.CreateUploadResponse:
    """Begins an upload of data; what is said of it may be overruled."""
    values: dict[str, Any] = {"filename": "photo.png", "size_bytes": len(data)} | said
    response: assets_pb2.CreateUploadResponse = await team.call(
        "CreateUpload", assets_pb2.CreateUploadRequest(**values)
    )
    return response


async def put(url: str, data: bytes) -> int:
    """Puts data as a browser would; the status."""

    def send() -> int:
        with urllib3.PoolManager(retries=False) as pool:
            return pool.request("PUT", url, body=data).status

    return await asyncio.to_thread(send)


async def complete(team: Team, upload_id: int) -> assets_pb2.File:
    response: assets_pb2.CompleteUploadResponse = await team.call(
        "CompleteUpload", assets_pb2.CompleteUploadRequest(upload_id=upload_id)
    )
    return response.file


async def raw_key_of(house: AssetsHouse, upload_id: int) -> str:
    table = tables.pending_uploads
    async with house.db.read_all() as tx:
        rows = await tx.execute(sa.select(table).where(table.c.id == upload_id))
    row = rows.one()
    return raw_key(row.team, row.token)


async def expire(house: AssetsHouse) -> None:
    """Lets the time of all uploads by URL, and of what they set aside, run out."""
    async with house.db.duty() as tx:
        for table in (tables.pending_uploads, tables.reservations):
            await tx.execute(sa.update(table).values(expires_at=tx.after(-1.0)))


async def stored(team: Team) -> int:
    return (await team.storage()).stored_bytes


@pytest.mark.real
async def test_the_life_of_an_upload_by_url(s3_house: AssetsHouse, seaweed: SeaweedServer) -> None:
    red, blue = s3_house.team("red"), s3_house.team("blue")
    data = images.dirty_jpeg(6)  # metadata to strip, and to be turned
    begun = await create(red, data, sha256=sha256(data).upper(), filename="../Schuh.jpg")
    left = begun.expire_time.ToDatetime(tzinfo=s3_house.clock.now().tzinfo) - s3_house.clock.now()
    assert 280 < left.total_seconds() <= 300
    assert await stored(red) == len(data)
    assert await red.files() == []
    assert await put(begun.url, data) == TAKEN
    assert await reason_of(complete(blue, begun.upload_id)) == "RESOURCE_NOT_FOUND"
    file = await complete(red, begun.upload_id)
    twin = await red.upload(data)
    assert (file.kind, file.filename) == (assets_pb2.FILE_KIND_UPLOAD, "Schuh.jpg")
    assert (file.sha256, file.width, file.height) == (twin.sha256, twin.width, twin.height)
    assert sha256((await red.download(file.id))[1]) == file.sha256
    assert await stored(red) == 2 * file.size_bytes
    assert await s3_house.count(tables.reservations) == 0
    raw = await raw_key_of(s3_house, begun.upload_id)
    assert list(seaweed.client().list_objects(seaweed.bucket, raw)) == []
    await expire(s3_house)
    assert await complete(red, begun.upload_id) == file
    assert await reason_of(complete(blue, begun.upload_id)) == "RESOURCE_NOT_FOUND"
    await red.delete(file.id)
    assert await reason_of(complete(red, begun.upload_id)) == "RESOURCE_NOT_FOUND"


@pytest.mark.real
@pytest.mark.parametrize("make_s3_house", ["sqlite"], indirect=True)
async def test_the_store_takes_the_announced_length_alone(s3_house: AssetsHouse) -> None:
    red = s3_house.team("red")
    begun = await create(red)
    for other in (PNG + b"x", PNG[:-1], b""):
        assert await put(begun.url, other) == FORBIDDEN
    longer = begun.url.replace("X-Amz-Expires=300", "X-Amz-Expires=3000")
    assert longer != begun.url
    assert await put(longer, PNG) == FORBIDDEN
    assert await reason_of(complete(red, begun.upload_id)) == "UPLOAD_INCOMPLETE"


@pytest.mark.real
@pytest.mark.parametrize("make_s3_house", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("data", "said", "reason"),
    [
        (bytes(len(PNG)), {}, "UNSUPPORTED_IMAGE_TYPE"),
        (PNG[:-20] + bytes(20), {}, "IMAGE_CORRUPT"),
        (PNG, {"sha256": sha256(b"other")}, "CHECKSUM_MISMATCH"),
        (PNG, {"content_type": "image/webp"}, "TYPE_MISMATCH"),
    ],
)
async def test_what_is_put_is_checked_like_any_upload(
    s3_house: AssetsHouse, data: bytes, said: dict[str, str], reason: str
) -> None:
    red = s3_house.team("red")
    begun = await create(red, data, **said)
    assert await put(begun.url, data) == TAKEN
    assert await reason_of(complete(red, begun.upload_id)) == reason
    assert await s3_house.rows() == 0
    assert await stored(red) == len(data)  # it is open still


@pytest.mark.real
@pytest.mark.parametrize("make_s3_house", ["sqlite"], indirect=True)
async def test_a_refused_upload_is_open_until_it_expires(s3_house: AssetsHouse) -> None:
    red = s3_house.team("red")
    begun = await create(red)
    assert await reason_of(complete(red, begun.upload_id)) == "UPLOAD_INCOMPLETE"
    assert await put(begun.url, bytes(len(PNG))) == TAKEN
    assert await reason_of(complete(red, begun.upload_id)) == "UNSUPPORTED_IMAGE_TYPE"
    assert await put(begun.url, PNG) == TAKEN
    assert (await complete(red, begun.upload_id)).width > 0
    late = await create(red)
    assert await put(late.url, PNG) == TAKEN
    await expire(s3_house)
    assert await reason_of(complete(red, late.upload_id)) == "RESOURCE_NOT_FOUND"
    assert await s3_house.rows() == 1


@pytest.mark.real
@pytest.mark.parametrize("make_s3_house", ["sqlite"], indirect=True)
async def test_a_store_that_took_another_length_is_not_believed(
    s3_house: AssetsHouse, seaweed: SeaweedServer
) -> None:
    """There are stores that do not look at the signed length."""
    red = s3_house.team("red")
    signed = seaweed.client()
    for data, reason in ((PNG + b"x", "FILE_TOO_LARGE"), (PNG[:-1], "SIZE_MISMATCH")):
        begun = await create(red)
        key = await raw_key_of(s3_house, begun.upload_id)
        url = await asyncio.to_thread(signed.presigned_put_object, seaweed.bucket, key)
        assert await put(url, data) == TAKEN
        assert await reason_of(complete(red, begun.upload_id)) == reason


@pytest.mark.real
async def test_a_request_id_names_one_upload(s3_house: AssetsHouse) -> None:
    red = s3_house.team("red")
    answers = await all_of(*(create(red, request_id="one") for _ in range(4)))
    assert len({answer.upload_id for answer in answers}) == 1
    assert await s3_house.count(tables.pending_uploads) == 1
    assert await stored(red) == len(PNG)
    assert await reason_of(create(red, request_id="one", filename="b.png")) == (
        "IDEMPOTENCY_KEY_REUSED"
    )
    again = await create(red, request_id="one")
    assert await put(again.url, PNG) == TAKEN
    assert (await complete(red, again.upload_id)).id > 0
    await create(s3_house.team("blue"), request_id="one", filename="b.png")
    await expire(s3_house)
    assert await reason_of(create(red, request_id="one")) == "RESOURCE_NOT_FOUND"


@pytest.mark.real
async def test_completing_at_once_makes_one_file(make_s3_house: MakeHouse) -> None:
    house = await make_s3_house(max_stored_bytes=len(PNG))
    red = house.team("red")
    begun = await create(red)
    assert await reason_of(create(red)) == "STORAGE_QUOTA"
    assert await put(begun.url, PNG) == TAKEN
    answers = await all_of(*(complete(red, begun.upload_id) for _ in range(4)))
    assert len({answer.id for answer in answers}) == 1
    assert await house.rows() == 1
    assert await stored(red) == answers[0].size_bytes


@pytest.mark.real
async def test_who_comes_late_to_what_another_completed_gets_its_file(
    s3_house: AssetsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = s3_house.team("red")
    begun = await create(red)
    assert await put(begun.url, PNG) == TAKEN
    find = CompleteUpload._find
    others: list[int] = []

    async def find_and_dawdle(self: CompleteUpload, team: str, upload_id: int) -> PendingUpload:
        found = await find(self, team, upload_id)
        if not others:
            others.append(0)
            others.append((await complete(red, upload_id)).id)  # and what was put is gone
        return found

    monkeypatch.setattr(CompleteUpload, "_find", find_and_dawdle)
    assert (await complete(red, begun.upload_id)).id == others[1]
    assert await s3_house.rows() == 1


async def test_the_embedded_store_has_no_urls(house: AssetsHouse, red: Team) -> None:
    assert await reason_of(create(red, request_id="one")) == "NO_PUBLIC_URLS"
    assert await house.count(tables.pending_uploads) == 0
    assert await house.count(tables.reservations) == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"size_bytes": 0}, "EMPTY_FILE"),
        ({"size_bytes": -1}, "INVALID_ARGUMENT"),
        ({"size_bytes": 10 * 1024 * 1024 + 1}, "FILE_TOO_LARGE"),
        ({"filename": "a\nb"}, "BAD_FILENAME"),
        ({"filename": "a" * 256}, "INVALID_ARGUMENT"),
        ({"content_type": "a" * 128}, "INVALID_ARGUMENT"),
        ({"sha256": "abc"}, "INVALID_ARGUMENT"),
        ({"request_id": "a" * 65}, "INVALID_ARGUMENT"),
    ],
)
async def test_what_is_said_is_checked_first(red: Team, said: dict[str, Any], reason: str) -> None:
    assert await reason_of(create(red, **said)) == reason


@pytest.mark.parametrize("upload_id", [0, -1])
async def test_no_upload_has_such_an_id(red: Team, upload_id: int) -> None:
    assert await reason_of(complete(red, upload_id)) == "INVALID_ARGUMENT"


async def test_an_upload_that_never_was_is_not_found(red: Team) -> None:
    assert await reason_of(complete(red, 2**63 - 1)) == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize("make_house", ["sqlite"], indirect=True)
async def test_what_is_never_completed_is_removed(make_house: MakeHouse, blobs: Path) -> None:
    await make_house(orphan_seconds=0.2)
    raw = blobs / raw_key("red", "0" * 32)
    raw.parent.mkdir(parents=True)
    await asyncio.to_thread(raw.write_bytes, PNG)
    await eventually(lambda: not raw.exists())


async def test_old_uploads_are_forgotten_and_open_ones_are_not(make_house: MakeHouse) -> None:
    house = await make_house(retention_keys_days=1.0, retention_seconds=0.1)
    table = tables.pending_uploads
    ages = {"old": (-2.0, -1.0), "open": (-2.0, 1.0), "new": (0.0, -1.0)}  # days
    async with house.db.duty() as tx:
        for name, (begun, ends) in ages.items():
            values = dict.fromkeys(("filename", "content_type", "sha256"), "") | {
                "team": "red",
                "token": name,
                "size_bytes": 1,
            }
            times = {
                "created_at": tx.after(begun * 86400),
                "expires_at": tx.after(ends * 86400),
            }
            await tx.execute(sa.insert(table).values(**values, **times))

    async def two_left() -> bool:
        return await house.count(table) == len(ages) - 1

    await eventually(two_left)
    assert await house.count(table, table.c.token == "old") == 0
