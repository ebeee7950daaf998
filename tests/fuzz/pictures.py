"""Broken and hostile pictures through every door that takes one."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
import sqlalchemy as sa
import urllib3
from hypothesis import strategies as st

from contentshop.assets.v1 import assets_pb2, backend_pb2
from libs.common.blobs_open import open_blob_urls
from libs.common.ids import SystemIds
from services.assets import tables
from tests.fixtures import images
from tests.fixtures.inspections import HARMLESS_INFO, MARKS, TYPES
from tests.fixtures.mutants import SEEDS, mutants, outside_pixels
from tests.fuzz.calls import Call
from tests.fuzz.house import CLOCK, OURS, House
from tests.fuzz.judging import Tally, judge
from tests.support.assets_house import blob_files, chunks_of
from tests.support.databases import ROOT
from tests.support.eventually import eventually

DOORS = ("upload", "generated", "put")
ASSETS, BACKEND = (
    "/contentshop.assets.v1.AssetsService",
    "/contentshop.assets.v1.AssetsBackendService",
)
PHOTOS = [path.read_bytes() for path in sorted((ROOT / "examples" / "photos").glob("*.jpg"))[:2]]
TAILS = (images.HTML, images.zip_file(), b"\0", b"\xff\xd9", bytes(70_000), images.encoded("PNG"))
# Ours to say where a picture came from; nothing else may be in its metadata.
OUR_INFO = {"xmp", "XML:com.adobe.xmp"}
MAX_BYTES = 10 * 2**20


def hostile() -> list[bytes]:
    """What is made to hurt, whole; mutants of it come too."""
    png = images.encoded("PNG")
    return [
        *(make(3) for make in images.DIRTY.values()),
        *(make(1) + tail for make in images.DIRTY.values() for tail in TAILS[:2]),
        images.png_bomb(9400),
        images.png_header(60_000, 60_000) + images.png_chunk(b"IEND"),
        images.with_png_chunks(png, images.text_bomb(b"zTXt")),
        images.with_png_chunks(png, images.text_bomb(b"iTXt")),
        *(images.frames(kind) for kind in ("PNG", "WEBP", "GIF")),
        *(images.encoded(kind) for kind in ("GIF", "BMP", "TIFF", "ICO")),
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"%PDF-1.4\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"",
    ]


HOSTILE = hostile()
WHOLE = [*PHOTOS, *SEEDS, *(make(turn) for make in images.DIRTY.values() for turn in (1, 6))]


@dataclass(frozen=True)
class Picture:
    """Bytes, what is said of them, and the door they come to."""

    door: str
    data: bytes
    said: str
    shuffled: bool

    def __repr__(self) -> str:
        return f"{self.door} {self.said!r} {len(self.data)} B, shuffled {self.shuffled}"


def pictures(doors: tuple[str, ...] = DOORS) -> st.SearchStrategy[Picture]:
    """Mutants of small pictures, of photos, and of what is hostile."""
    randoms = st.randoms(use_true_random=True)
    broken = st.builds(_broken, randoms)
    whole = st.builds(lambda random: random.choice(WHOLE), randoms)
    return st.builds(
        Picture,
        st.sampled_from(doors),
        st.one_of(mutants(), broken, whole),
        st.sampled_from(("",) * 6 + ("image/png", "image/jpeg", "image/webp", "image/svg+xml")),
        st.integers(0, 9).map(lambda n: n == 0),
    )


def _broken(random: Random) -> bytes:
    kind = random.randrange(6)
    if kind == 0:
        return random.choice(HOSTILE)
    data = bytearray(random.choice((*SEEDS, *HOSTILE, *PHOTOS)))
    if kind == 1:
        return bytes(data) + random.choice(TAILS)
    if kind == 2:
        return bytes(data[: random.randint(0, len(data))])
    for _ in range(random.randint(1, 8) if data else 0):
        at = random.randrange(len(data))
        if kind == 3:
            data[at] ^= 1 << random.randrange(8)
        elif kind == 4:  # sizes are mostly of two or four bytes, near the front
            at = random.randrange(min(len(data), 400))
            data[at : at + 4] = random.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")
            )
        else:
            end = min(at + random.randint(1, 500), len(data))
            data[at:end] = reversed(data[at:end])
    is_png = data.startswith(images.PNG_SIGNATURE) and random.randrange(2)
    return images.fix_png_checksums(bytes(data)) if is_png else bytes(data)


@dataclass
class Kept:
    """What came of the pictures."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    file_ids: set[int] = field(default_factory=set)


async def send(house: House, number: int, picture: Picture, tally: Tally, kept: Kept) -> None:
    """Sends one; what is accepted is read back and looked through."""
    sender = {"upload": _upload, "generated": _generated, "put": _put}[picture.door]
    stored = await sender(house, number, picture, tally)
    if stored is None:
        kept.refused[picture.door] += 1
        return
    file_id, data = stored
    kept.accepted[picture.door] += 1
    kept.file_ids.add(file_id)
    try:
        check_clean(data)
    except (AssertionError, OSError, SyntaxError, ValueError) as error:
        tally.failures.append(f"accepted and not clean: {error!r}\n  {picture!r}")


def check_clean(data: bytes) -> None:
    """Asserts that a decoder reads it whole, and that nothing but the picture is in it."""
    heads = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WEBP"}
    kind = next(kind for head, kind in heads.items() if data.startswith(head))
    image = images.decoded(data, kind)
    assert kind in TYPES
    unknown = set(image.info) - HARMLESS_INFO - OUR_INFO
    assert not unknown, unknown
    outside = outside_pixels(kind, data, image.info.get("icc_profile") or b"\0none")
    found = [mark for mark in MARKS if mark in outside]
    assert not found, found
    assert not image.getexif()
    assert not zipfile.is_zipfile(io.BytesIO(data))


def _chunks(number: int, picture: Picture) -> list[bytes]:
    found = chunks_of(picture.data, 64 * 1024 if len(picture.data) > 4096 else 256)
    if picture.shuffled:
        Random(number).shuffle(found)  # noqa: S311 - an order, not a secret
    return found


async def _upload(
    house: House, number: int, picture: Picture, tally: Tally
) -> tuple[int, bytes] | None:
    request = assets_pb2.UploadFileRequest
    header = assets_pb2.UploadHeader(
        filename=f"{number}.png", size_bytes=len(picture.data), content_type=picture.said
    )
    parts = [request(header=header), *(request(chunk=c) for c in _chunks(number, picture))]
    sent = tuple(part.SerializeToString() for part in parts)
    answer = await judge(house, Call(f"{ASSETS}/UploadFile", "team", OURS, sent), tally)
    if answer.code is not grpc.StatusCode.OK:
        return None
    file = assets_pb2.UploadFileResponse.FromString(answer.body).file
    return file.id, await _download(house, file)


async def _download(house: House, file: assets_pb2.File) -> bytes:
    token = house.token("team", "assets")
    stub: Any = house.channels["assets"].unary_stream(
        f"{ASSETS}/DownloadFile",
        request_serializer=assets_pb2.DownloadFileRequest.SerializeToString,
        response_deserializer=assets_pb2.DownloadFileResponse.FromString,
    )
    how = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": 30}
    parts = [part async for part in stub(assets_pb2.DownloadFileRequest(file_id=file.id), **how)]
    data = b"".join(part.chunk for part in parts[1:])
    assert hashlib.sha256(data).hexdigest() == file.sha256
    return data


async def _generated(
    house: House, number: int, picture: Picture, tally: Tally
) -> tuple[int, bytes] | None:
    request = backend_pb2.StoreGeneratedRequest
    header = backend_pb2.StoreGeneratedHeader(
        team=OURS,
        job_id=1_000_000 + number,
        image_index=1,
        size_bytes=len(picture.data),
        sha256=hashlib.sha256(picture.data).hexdigest(),
        model="small",
        attempt=1,
        prompt=f"in the dark {number}" if number % 2 else "",
    )
    parts = [request(header=header), *(request(chunk=c) for c in _chunks(number, picture))]
    sent = tuple(part.SerializeToString() for part in parts)
    answer = await judge(house, Call(f"{BACKEND}/StoreGenerated", "worker", OURS, sent), tally)
    if answer.code is not grpc.StatusCode.OK:
        return None
    image = backend_pb2.StoreGeneratedResponse.FromString(answer.body).image
    urls = open_blob_urls(house.blob_url, clock=CLOCK, ids=SystemIds())
    await urls.start()
    try:
        return image.file_id, await urls.read_all(image.blob_url, 2 * MAX_BYTES)
    finally:
        await urls.close()


async def _put(
    house: House, number: int, picture: Picture, tally: Tally
) -> tuple[int, bytes] | None:
    request = assets_pb2.CreateUploadRequest(
        filename=f"{number}.png", size_bytes=len(picture.data), content_type=picture.said
    )
    create = Call(f"{ASSETS}/CreateUpload", "team", OURS, (request.SerializeToString(),))
    answer = await judge(house, create, tally)
    if answer.code is not grpc.StatusCode.OK:
        return None
    made = assets_pb2.CreateUploadResponse.FromString(answer.body)
    data = b"".join(_chunks(number, picture))
    with urllib3.PoolManager(retries=False) as pool:
        assert pool.request("PUT", made.url, body=data).status == 200
    complete = assets_pb2.CompleteUploadRequest(upload_id=made.upload_id)
    call = Call(f"{ASSETS}/CompleteUpload", "team", OURS, (complete.SerializeToString(),))
    answer = await judge(house, call, tally)
    if answer.code is not grpc.StatusCode.OK:
        return None
    file = assets_pb2.CompleteUploadResponse.FromString(answer.body).file
    return file.id, await _download(house, file)


async def check_stored(house: House, kept: Kept, folder: Path | None) -> None:
    """Asserts that what was accepted is all there is: rows, bytes set aside, and blobs."""

    async def hold() -> bool:
        rows, reserved, pending = read_rows(house)
        assert set(rows) == kept.file_ids, set(rows) ^ kept.file_ids
        assert reserved == pending  # those that were put and refused may be put again
        if folder is not None:
            found = {str(path.relative_to(folder)) for path in blob_files(folder)}
            assert found == set(rows.values()), found ^ set(rows.values())
        return True

    await eventually(hold, timeout_seconds=60, what="what was refused has left nothing")


def read_rows(house: House) -> tuple[dict[int, str], int, int]:
    """Blob keys by file id; reservations and pending uploads, counted."""
    urls = house.urls["assets"]
    engine = sa.create_engine((urls.duty or urls.app).replace("+aiosqlite", ""))
    with engine.connect() as connection:
        files = connection.execute(sa.select(tables.files.c.id, tables.files.c.blob_key)).all()
        open_uploads = tables.pending_uploads.c.file_id == 0
        counts = [
            connection.scalar(sa.select(sa.func.count()).select_from(table).where(which)) or 0
            for table, which in (
                (tables.reservations, sa.true()),
                (tables.pending_uploads, open_uploads),
            )
        ]
    engine.dispose()
    return {row.id: row.blob_key for row in files}, counts[0], counts[1]
