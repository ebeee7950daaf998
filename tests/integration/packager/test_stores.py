"""Bytes from blob to blob: on S3, damaged on the way, in constant memory."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from isal import isal_zlib

from contentshop.enqueue.v1 import job_pb2
from libs.common.blobs_urls import FileBlobUrls
from libs.common.crash import CrashPoints
from libs.common.errors import DataLossError, InvalidArgumentError, NotFoundError
from libs.common.ids import SystemIds
from services.packager.gateways.zips import ZipWriter
from services.packager.zipstream import ZipEntry, plan
from services.packager.zipwork import ZipWork
from tests.integration.packager.house import House, check_archive, open_house
from tests.support.blob_pairs import s3_store
from tests.support.databases import sqlite_database
from tests.support.seaweed import SeaweedServer

MIB = 1024 * 1024


@pytest.fixture
async def s3_house(tmp_path: Path, seaweed: SeaweedServer) -> AsyncIterator[House]:
    """The packager on S3, whose server keeps its blobs from test to test."""
    urls = sqlite_database("packager", tmp_path)
    store = s3_store(seaweed, seaweed.endpoint)
    async with open_house(urls, tmp_path, store=store, BLOB_URL=seaweed.blob_url()) as house:
        house.assets.folder = SystemIds().token()
        yield house


@pytest.mark.real
async def test_a_zip_is_built_and_read_on_s3(s3_house: House) -> None:
    images = await s3_house.job(7, 12)
    await s3_house.announce(7)
    (report,) = await s3_house.reported()
    assert report.state == job_pb2.ARCHIVE_STATE_READY
    _, data = await s3_house.team().download(job_id=7)
    check_archive(data, 7, images)


@pytest.mark.real
async def test_a_damaged_image_on_s3_leaves_no_zip(s3_house: House) -> None:
    await s3_house.job(7, 3)
    file = s3_house.assets.files[702]
    await s3_house.assets.store.delete([file.key])
    await s3_house.assets.store.put(file.key, [b"x" * file.size], "image/png")
    await s3_house.announce(7)
    (report,) = await s3_house.reported()
    assert report.error.reason == "DATA_LOSS"
    left = [blob async for blob in s3_house.assets.store.list(f"{s3_house.assets.folder}/archives")]
    assert left == []


@pytest.mark.real
async def test_a_missing_blob_on_s3_is_missing(s3_house: House) -> None:
    await s3_house.job(7, 3)
    await s3_house.assets.store.delete([s3_house.assets.files[702].key])
    await s3_house.announce(7)
    (report,) = await s3_house.reported()
    assert report.error.reason == "INPUT_MISSING"


# The zip's two ways: files read in the writing thread, and chunks handed over by the event loop.
@pytest.fixture(params=["read by the thread", "fed by the loop"])
async def writer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ZipWriter]:
    """A writer over the blobs of tmp_path."""
    blobs = FileBlobUrls(tmp_path, SystemIds())
    await blobs.start()
    local = tmp_path if request.param == "read by the thread" else None
    zips = ZipWriter(blobs, local_root=local, zips_at_once=1, crash=CrashPoints(""))
    yield zips
    await zips.close()
    await blobs.close()


def _work(folder: Path, data: bytes, count: int) -> ZipWork:
    (folder / "image").write_bytes(data)
    crc32 = isal_zlib.crc32(data)
    entries = [ZipEntry(f"image-{n}.png", len(data), crc32) for n in range(1, count + 1)]
    return ZipWork(plan(entries), (f"{folder.as_uri()}/image",) * count)


async def test_memory_does_not_grow_with_the_images(writer: ZipWriter, tmp_path: Path) -> None:
    work = await asyncio.to_thread(_work, tmp_path, hashlib.shake_128(b"").digest(8 * MIB), 40)
    tracemalloc.start()
    try:
        sums = await writer.write(f"{tmp_path.as_uri()}/zip", work)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB  # of 320
    written = tmp_path / "zip"
    assert written.stat().st_size == work.plan.size

    def sums_of_file() -> tuple[str, int]:
        digest, crc32 = hashlib.sha256(), 0
        with written.open("rb") as file:
            while block := file.read(MIB):
                digest.update(block)
                crc32 = isal_zlib.crc32(block, crc32)
        written.unlink()
        return digest.hexdigest(), crc32

    assert sums == await asyncio.to_thread(sums_of_file)


async def test_faults_of_a_source_come_out_as_themselves(writer: ZipWriter, tmp_path: Path) -> None:
    work = await asyncio.to_thread(_work, tmp_path, bytes(3 * MIB), 3)
    target = f"{tmp_path.as_uri()}/zip"
    good = work.contents[0]
    for bad, kind in (
        (f"{tmp_path.as_uri()}/nothing", NotFoundError),
        ("file:///etc/passwd", InvalidArgumentError),
        (f"{tmp_path.as_uri()}/../x", InvalidArgumentError),
    ):
        with pytest.raises(kind):
            await writer.write(target, ZipWork(work.plan, (good, bad, good)))
    for size in (3 * MIB - 1, 3 * MIB + 1):
        await asyncio.to_thread((tmp_path / "image").write_bytes, bytes(size))
        with pytest.raises(DataLossError):
            await writer.write(target, work)
    assert not (tmp_path / "zip").exists()
    assert not list((tmp_path / ".tmp").iterdir())


async def test_a_canceled_write_leaves_nothing(writer: ZipWriter, tmp_path: Path) -> None:
    work = await asyncio.to_thread(_work, tmp_path, bytes(8 * MIB), 40)
    amid, broken_off = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def at_entry(position: int) -> None:
        if position == 2:
            loop.call_soon_threadsafe(amid.set)
            broken_off.wait()

    writing = asyncio.ensure_future(  # noqa: TID251 - awaited below
        writer.write(f"{tmp_path.as_uri()}/zip", work, on_entry=at_entry)
    )
    await amid.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    broken_off.set()
    await writer._blobs.close()  # waits for its threads
    assert not (tmp_path / "zip").exists()
    assert not list((tmp_path / ".tmp").iterdir())
