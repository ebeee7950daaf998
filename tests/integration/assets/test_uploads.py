"""Uploads over the wire: every refusal there is, and nothing is left of any."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2
from libs.common.errors import (
    AlreadyExistsError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from tests.fixtures import images
from tests.fixtures.inspections import KINDS, MARKS, TYPES
from tests.support.assets_house import (
    DATABASES,
    PNG,
    AssetsHouse,
    Team,
    all_of,
    blob_files,
    database,
    nothing_in,
    opened,
    reason_of,
    sha256,
)
from tests.support.databases import sqlite_database
from tests.support.eventually import eventually

MIB = 1024 * 1024
Part = assets_pb2.UploadFileRequest


def header(**said: Any) -> Part:
    return Part(header=assets_pb2.UploadHeader(**said))


@pytest.fixture(params=DATABASES, scope="module")
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AssetsHouse]:
    folder = tmp_path_factory.mktemp("uploads")
    urls = database(request.param, request, folder)
    made = AssetsHouse(urls, (folder / "blobs").as_uri())
    async with opened(made):
        yield made


@pytest.fixture
def blobs(house: AssetsHouse) -> Path:
    return Path(house.settings.blob_url.removeprefix("file://"))


@pytest.fixture
async def team(house: AssetsHouse, blobs: Path) -> AsyncIterator[Team]:
    """A team whose test leaves nothing in the blob folder and no row behind."""
    before = await house.rows()
    yield house.team("uploaders")
    await nothing_in(blobs)
    assert await house.rows() == before


BAD_IMAGES: list[tuple[str, bytes, str]] = [
    ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "UNSUPPORTED_IMAGE_TYPE"),
    ("html", images.HTML, "UNSUPPORTED_IMAGE_TYPE"),
    ("pdf", b"%PDF-1.7\n%", "UNSUPPORTED_IMAGE_TYPE"),
    ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "UNSUPPORTED_IMAGE_TYPE"),
    ("gif-js", b"GIF89a/*", "UNSUPPORTED_IMAGE_TYPE"),
    ("gif", images.frames("GIF"), "UNSUPPORTED_IMAGE_TYPE"),
    ("png-html", PNG + images.HTML, "TRAILING_DATA"),
    ("jpeg-zip", images.encoded("JPEG") + images.zip_file(), "TRAILING_DATA"),
    ("webp-js", images.encoded("WEBP") + b"<script>", "TRAILING_DATA"),
    ("bomb-20000", images.png_bomb(20_000), "IMAGE_TOO_LARGE"),
    ("bomb-9400", images.png_bomb(9_400), "IMAGE_TOO_LARGE"),
    ("apng", images.frames("PNG", 20), "ANIMATED_NOT_ALLOWED"),
    ("animated-webp", images.frames("WEBP", 20), "ANIMATED_NOT_ALLOWED"),
    ("truncated-png", PNG[:-20], "IMAGE_CORRUPT"),
    ("truncated-jpeg", images.encoded("JPEG")[:-30], "IMAGE_CORRUPT"),
    ("truncated-webp", images.encoded("WEBP")[:-10], "IMAGE_CORRUPT"),
]


@pytest.mark.parametrize(
    ("data", "reason"), [(d, r) for _, d, r in BAD_IMAGES], ids=[n for n, _, _ in BAD_IMAGES]
)
async def test_bad_images_are_refused(team: Team, data: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await team.upload(data)
    assert caught.value.reason == reason


async def test_the_declared_type_must_be_the_real_one(team: Team) -> None:
    assert await reason_of(team.upload(PNG, content_type="image/jpeg")) == "TYPE_MISMATCH"
    assert await reason_of(team.upload(PNG, content_type="text/html")) == "TYPE_MISMATCH"


async def test_the_declared_checksum_must_match(team: Team) -> None:
    assert await reason_of(team.upload(PNG, sha256=sha256(b"other"))) == "CHECKSUM_MISMATCH"


CHUNK_PART = Part(chunk=PNG)
OUT_OF_PLACE: list[tuple[str, list[Part], str]] = [
    ("empty-stream", [], "HEADER_MISPLACED"),
    ("chunk-first", [CHUNK_PART], "HEADER_MISPLACED"),
    ("nothing-first", [Part()], "HEADER_MISPLACED"),
    ("header-twice", [header(size_bytes=9)] * 2, "HEADER_MISPLACED"),
    (
        "header-last",
        [header(size_bytes=len(PNG)), CHUNK_PART, header(size_bytes=len(PNG))],
        "HEADER_MISPLACED",
    ),
    ("nothing-then", [header(size_bytes=9), Part()], "HEADER_MISPLACED"),
    (
        "long-chunk",
        [header(size_bytes=MIB), Part(chunk=bytes(512 * 1024 + 1))],
        "INVALID_ARGUMENT",
    ),
]


@pytest.mark.parametrize(
    ("parts", "reason"), [(p, r) for _, p, r in OUT_OF_PLACE], ids=[n for n, _, _ in OUT_OF_PLACE]
)
async def test_messages_out_of_place_are_refused(
    team: Team, parts: list[Part], reason: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await team.send(parts)
    assert caught.value.reason == reason


SIZES: list[tuple[str, list[Part], str]] = [
    ("none-declared", [header(size_bytes=0), CHUNK_PART], "EMPTY_FILE"),
    ("none-sent", [header(size_bytes=9)], "EMPTY_FILE"),
    ("empty-chunks", [header(size_bytes=9), Part(chunk=b""), Part(chunk=b"")], "EMPTY_FILE"),
    ("negative", [header(size_bytes=-1)], "INVALID_ARGUMENT"),
    ("too-large", [header(size_bytes=10 * MIB + 1)], "FILE_TOO_LARGE"),
    ("int64", [header(size_bytes=2**63 - 1)], "FILE_TOO_LARGE"),
    ("more-than-declared", [header(size_bytes=len(PNG) - 1), CHUNK_PART], "FILE_TOO_LARGE"),
    ("less-than-declared", [header(size_bytes=len(PNG) + 1), CHUNK_PART], "SIZE_MISMATCH"),
]


@pytest.mark.parametrize(
    ("parts", "reason"), [(p, r) for _, p, r in SIZES], ids=[n for n, _, _ in SIZES]
)
async def test_sizes_are_checked(team: Team, parts: list[Part], reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await team.send(parts)
    assert caught.value.reason == reason


async def test_the_first_message_is_enough_to_refuse(team: Team) -> None:
    """The answer comes while the client still sends."""
    forever = asyncio.Event()

    async def parts() -> AsyncIterator[Part]:
        yield header(size_bytes=10 * MIB + 1)
        await forever.wait()

    with pytest.raises(InvalidArgumentError) as caught:
        await team.send(parts())
    assert caught.value.metadata == {"maxBytes": str(10 * MIB)}


async def test_the_chunk_that_crosses_ends_the_upload(team: Team) -> None:
    sent = 0

    async def parts() -> AsyncIterator[Part]:
        nonlocal sent
        yield header(size_bytes=MIB)
        while True:
            sent += 1
            yield Part(chunk=bytes(256 * 1024))

    async def reason() -> str:
        return await reason_of(team.send(parts()))

    # Its write may cross the answer, and grpc.aio then tells nothing of it: see status.py.
    await eventually(lambda: _is(reason(), "FILE_TOO_LARGE"))
    assert sent < 1000


async def _is(answer: Awaitable[str], expected: str) -> bool:
    reason = await answer
    assert reason in {expected, "UNAVAILABLE"}
    return reason == expected


@pytest.mark.parametrize(
    "said",
    [
        {"filename": "a\0.png"},
        {"filename": "a\r\nb.png"},
        {"filename": "x" * 256},
        {"filename": "é" * 128},
        {"content_type": "x" * 200},
        {"content_type": "image/png\r\nx: y"},
        {"sha256": "abc"},
        {"sha256": "g" * 64},
        {"request_id": "x" * 65, "sha256": sha256(PNG)},
        {"request_id": "schlüssel", "sha256": sha256(PNG)},
        {"request_id": "two words", "sha256": sha256(PNG)},
        {"request_id": "no-checksum"},
    ],
)
async def test_wrong_headers_are_refused(team: Team, said: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        await team.upload(PNG, **said)


@pytest.mark.parametrize(
    ("filename", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("a/b.png", "b.png"),
        ("C:\\photos\\x.png", "x.png"),
        (".htaccess", "htaccess"),
        ("\u202egnp.exe", "gnp.exe"),
        ("CON", "_CON"),
        ("-rf", "rf"),
        ("", "file"),
        ("x" * 250 + ".png", "x" * 96 + ".png"),
    ],
)
async def test_filenames_are_cleaned(
    house: AssetsHouse, team: Team, filename: str, kept: str
) -> None:
    file = await team.upload(PNG, filename=filename)
    assert file.filename == kept
    await gone(house, team, file.id)


async def gone(house: AssetsHouse, team: Team, file_id: int) -> None:
    """Deletes a file and waits until its row is removed too."""
    await team.delete(file_id)

    async def removed() -> bool:
        return await house.rows() == 0

    await eventually(removed)


@pytest.mark.parametrize("kind", KINDS)
async def test_metadata_is_stripped_and_the_image_turned(
    house: AssetsHouse, team: Team, kind: str
) -> None:
    file = await team.upload(images.DIRTY[kind](6), content_type=TYPES[kind])
    assert (file.width, file.height) == (24, 40)
    assert file.content_type == TYPES[kind]
    _, stored = await team.download(file.id)
    assert sha256(stored) == file.sha256
    assert not any(mark in stored for mark in MARKS)
    assert not zipfile.is_zipfile(io.BytesIO(stored))
    await gone(house, team, file.id)


async def test_the_largest_upload_is_taken(house: AssetsHouse, team: Team) -> None:
    size = 10 * MIB
    filler = images.png_chunk(b"prVt", bytes(size - len(PNG) - 12))
    data = images.with_png_chunks(PNG, filler)
    assert len(data) == size
    file = await team.upload(data)
    assert file.size_bytes == len(PNG)
    await gone(house, team, file.id)


async def test_garbage_is_malformed(house: AssetsHouse) -> None:
    channel = house.channel()
    call: Any = channel.stream_unary("/contentshop.assets.v1.AssetsService/UploadFile")
    token = house.team_token("uploaders")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(iter([b"\xff\xff\xff"]), metadata=(("authorization", f"Bearer {token}"),))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(iter([b"\xff\xff\xff"]))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await channel.close()


async def test_a_client_that_leaves_leaves_nothing(team: Team) -> None:
    started = asyncio.Event()

    async def parts() -> AsyncIterator[Part]:
        yield header(size_bytes=len(PNG))
        yield Part(chunk=PNG[:100])
        started.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        upload = tasks.create_task(team.send(parts()))
        await started.wait()
        upload.cancel()


async def test_a_replay_is_the_same_file(house: AssetsHouse, blobs: Path) -> None:
    team, other = house.team("replayers"), house.team("others")
    said = {"request_id": "key-1", "sha256": sha256(PNG)}
    first = await team.upload(PNG, **said)
    assert await team.upload(PNG, **said) == first
    # From the header alone, whatever follows it.
    replay = header(filename="photo.png", size_bytes=len(PNG), **said)
    assert await team.send([replay]) == first
    assert await team.send([replay, Part(chunk=b"other bytes"), Part()]) == first
    with pytest.raises(AlreadyExistsError) as caught:
        await team.upload(PNG, **said, filename="other.png")
    assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"
    # The key comes before any other check of the header.
    assert await reason_of(team.upload(PNG, **said | {"size_bytes": -1})) == (
        "IDEMPOTENCY_KEY_REUSED"
    )
    others = await other.upload(PNG, **said)
    assert others.id != first.id
    await other.delete(others.id)
    await team.delete(first.id)
    with pytest.raises(NotFoundError):
        await team.upload(PNG, **said)
    await nothing_in(blobs)


async def test_a_key_is_kept_only_by_success(house: AssetsHouse, blobs: Path) -> None:
    team = house.team("triers")
    said = {"request_id": "key-1", "sha256": sha256(PNG), "size_bytes": len(PNG)}
    assert await reason_of(team.upload(PNG[:-1], **said)) == "SIZE_MISMATCH"
    file = await team.upload(PNG, **said)
    await team.delete(file.id)
    await nothing_in(blobs)


async def test_twenty_uploads_with_one_key_make_one_file(house: AssetsHouse, blobs: Path) -> None:
    team = house.team("racers")
    data = images.encoded("JPEG")
    answers = await all_of(
        *(team.upload(data, request_id="race", sha256=sha256(data)) for _ in range(20))
    )
    assert len({answer.id for answer in answers}) == 1
    assert len(await team.files()) == 1
    assert len(blob_files(blobs)) == 1
    await team.delete(answers[0].id)
    await nothing_in(blobs)


async def test_without_its_store_or_database_an_upload_leaves_nothing(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    made = AssetsHouse(sqlite_database("assets", tmp_path), blobs.as_uri())
    async with opened(made):
        team = made.team("unlucky")
        async with made.db.duty() as tx:
            await tx.execute(sa.text(REFUSE_ROWS))
        with pytest.raises(InternalError):
            await team.upload()
        assert blob_files(blobs) == []  # at once, not by a sweep
        blobs.rename(tmp_path / "away")
        with pytest.raises(UnavailableError) as caught:
            await team.upload()
        assert caught.value.retry_after_seconds


REFUSE_ROWS = "CREATE TRIGGER full BEFORE INSERT ON files BEGIN SELECT RAISE(ABORT, 'no'); END"
