from __future__ import annotations

import hashlib
import io
import mmap
import os
import random
import shutil
import stat
import subprocess
import tracemalloc
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import DataLossError
from services.packager.zipstream import (
    COALESCE_BYTES,
    MANIFEST_NAME,
    Piece,
    ZipEntry,
    plan,
    stream,
    stream_sync,
    zip_size,
)
from tests.support.zips import StrictZip, read_strictly

MIB = 1024 * 1024
BIG_CHUNK = bytes(4 * MIB)
BIG_SIZE = 1050 * len(BIG_CHUNK)  # 4.1 GiB
BIG_CRC32 = 0x1A41_9CB1  # by zlib.crc32, once

Files = list[tuple[str, bytes]]

FILES: Files = [
    ("image-1.png", b"\x89PNG" + random.Random(1).randbytes(200_000)),  # noqa: S311 - any bytes
    ("image-2.jpg", b""),
    ("image-3.webp", b"x" * COALESCE_BYTES),
    (MANIFEST_NAME, b"{}\n"),
]


def entries_of(files: Files, *, known: bool = True) -> list[ZipEntry]:
    return [ZipEntry(name, len(data), zlib.crc32(data) if known else None) for name, data in files]


def opener(files: Files, chunk_bytes: int = 30_000) -> Callable[[int], Iterator[bytes]]:
    def open_entry(index: int) -> Iterator[bytes]:
        data = files[index][1]
        for start in range(0, len(data), chunk_bytes):
            yield data[start : start + chunk_bytes]

    return open_entry


def async_opener(files: Files, chunk_bytes: int = 30_000) -> Callable[[int], AsyncIterator[bytes]]:
    async def open_entry(index: int) -> AsyncIterator[bytes]:
        for chunk in opener(files, chunk_bytes)(index):
            yield chunk

    return open_entry


def zipped(files: Files, entries: list[ZipEntry] | None = None, *, verify: bool = True) -> bytes:
    layout = plan(entries if entries is not None else entries_of(files))
    return b"".join(stream_sync(layout, opener(files), verify=verify))


def drain(pieces: Iterator[Piece], into: bytearray) -> None:
    for piece in pieces:
        into += piece


async def drain_async(pieces: AsyncIterator[Piece], into: bytearray) -> None:
    async for piece in pieces:
        into += piece


def not_a_zip(data: bytes) -> bool:
    try:
        zipfile.ZipFile(io.BytesIO(data)).close()
    except zipfile.BadZipFile:
        return True
    return False


# What readers see


@pytest.mark.parametrize("known", [True, False])
def test_reads_back_with_zipfile(*, known: bool) -> None:
    data = zipped(FILES, entries_of(FILES, known=known))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [name for name, _ in FILES]
        assert [archive.read(name) for name in archive.namelist()] == [body for _, body in FILES]
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.create_system == 3
            assert stat.S_ISREG(info.external_attr >> 16)
            assert stat.S_IMODE(info.external_attr >> 16) == 0o644
            assert info.flag_bits == (0 if known else 8)
            assert info.extract_version == (10 if known else 20)
            assert info.extra == b""


@pytest.mark.parametrize("known", [True, False])
def test_other_tools_agree(tmp_path: Path, *, known: bool) -> None:
    unzip, zipinfo = shutil.which("unzip"), shutil.which("zipinfo")
    if not unzip or not zipinfo:
        pytest.skip("no unzip here")
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(FILES, entries_of(FILES, known=known)))
    tested = subprocess.run([unzip, "-t", path], capture_output=True, text=True, check=True)
    assert "No errors detected" in tested.stdout
    told = subprocess.run([zipinfo, path], capture_output=True, text=True, check=True).stdout
    lines = [line for line in told.splitlines() if line.startswith("-rw-r--r--")]
    assert len(lines) == len(FILES)
    assert all("stor" in line and "80-Jan-01 00:00" in line for line in lines)
    assert "warning" not in tested.stderr + told


def test_an_empty_archive_is_a_zip() -> None:
    data = zipped([])
    assert len(data) == zip_size([]) == 22
    assert not not_a_zip(data)


# Size and layout


NAMES = st.from_regex(r"[a-z0-9_-]{1,8}(/[A-Z0-9_-]{1,8}){0,2}(\.png)?", fullmatch=True)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    files=st.lists(
        st.tuples(NAMES, st.binary(max_size=300), st.booleans()),
        max_size=12,
        unique_by=lambda row: row[0].lower().split("/")[0],
    ),
    chunk_bytes=st.integers(1, 400),
)
def test_size_is_exact_and_every_byte_accounted_for(
    files: list[tuple[str, bytes, bool]], chunk_bytes: int
) -> None:
    bodies = [(name, body) for name, body, _ in files]
    entries = [ZipEntry(n, len(b), zlib.crc32(b) if known else None) for n, b, known in files]
    data = b"".join(stream_sync(plan(entries), opener(bodies, chunk_bytes)))
    assert len(data) == zip_size(entries)
    found = read_strictly(data)
    assert not found.zip64_end
    assert [(e.name, e.size, e.crc32, e.descriptor) for e in found.entries] == [
        (name, len(body), zlib.crc32(body), not known) for name, body, known in files
    ]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert [archive.read(info) for info in archive.infolist()] == [b for _, b, _ in files]


@pytest.mark.parametrize(("count", "wide"), [(65_534, False), (65_535, True), (70_000, True)])
def test_many_entries(count: int, *, wide: bool) -> None:
    files = [(f"image-{number}.png", b"%d" % number) for number in range(1, count + 1)]
    entries = entries_of(files)
    data = zipped(files, entries)
    assert len(data) == zip_size(entries)
    assert read_strictly(data).zip64_end is wide
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == [name for name, _ in files]
        assert archive.read(files[-1][0]) == files[-1][1]


def write_sparse(path: Path, entries: list[ZipEntry], bodies: dict[int, bytes]) -> None:
    """Write a zip whose entries without a body are zeros, as holes: seeks take no disk."""

    def open_entry(index: int) -> Iterator[Piece]:
        if index in bodies:
            yield bodies[index]
            return
        for _ in range(BIG_SIZE // len(BIG_CHUNK)):
            yield BIG_CHUNK

    with path.open("wb") as sink:
        for piece in stream_sync(plan(entries), open_entry):
            if piece is BIG_CHUNK:
                sink.seek(len(piece), os.SEEK_CUR)
            else:
                sink.write(piece)


@pytest.mark.parametrize("known", [True, False])
def test_an_entry_of_four_gib_and_one_behind_it(tmp_path: Path, *, known: bool) -> None:
    path = tmp_path / "big.zip"
    tail = b"behind four gibibytes"
    entries = [
        ZipEntry("image-1.png", BIG_SIZE, BIG_CRC32 if known else None),
        ZipEntry("image-2.png", len(tail), zlib.crc32(tail) if known else None),
    ]
    write_sparse(path, entries, {1: tail})
    try:
        assert path.stat().st_size == zip_size(entries)
        assert path.stat().st_blocks * 512 < MIB, "the zeros should be holes"
        found = strict_file(path)
        assert found.zip64_end
        big, small = found.entries
        assert (big.size, big.crc32, big.local_version) == (BIG_SIZE, BIG_CRC32, 45)
        assert big.central_zip64_values == 2
        assert (small.central_zip64_values, small.central_version) == (1, 45)
        assert small.local_version == (10 if known else 20)
        with zipfile.ZipFile(path) as archive:
            assert [info.file_size for info in archive.infolist()] == [BIG_SIZE, len(tail)]
            assert archive.read("image-2.png") == tail
            with archive.open("image-1.png") as big_file:  # testzip would take seconds
                assert big_file.read(1000) == bytes(1000)
        if zipinfo := shutil.which("zipinfo"):
            told = subprocess.run([zipinfo, path], capture_output=True, text=True, check=True)
            assert str(BIG_SIZE) in told.stdout
    finally:
        path.unlink()


def strict_file(path: Path) -> StrictZip:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return read_strictly(view)


# Equal inputs, equal bytes


def test_equal_inputs_give_equal_bytes_however_they_are_cut() -> None:
    layout = plan(entries_of(FILES))
    archives = {b"".join(stream_sync(layout, opener(FILES, n))) for n in (7_001, 90_000, 10**6)}
    assert len(archives) == 1


def test_the_format_does_not_drift() -> None:
    # A change here gives archives already stored another key: see FAULTS P3 before editing.
    files = [("image-1.png", b"one"), ("image-2.jpg", b"two")]
    digests = [
        hashlib.sha256(zipped(files, entries_of(files, known=known))).hexdigest()
        for known in (True, False)
    ]
    assert digests == [
        "537936ecb86e50902fe7150b2a8cb0103c2ce5f83c59f66b3b64d45f0865f66d",
        "40a6dbdd2bc61c79ea0f7e00398356723ce57c336b0a450aaef85d1e332376f0",
    ]


@pytest.mark.parametrize("known", [True, False])
async def test_async_and_sync_give_the_same_pieces(*, known: bool) -> None:
    layout = plan(entries_of(FILES, known=known))
    for chunk_bytes in (999, COALESCE_BYTES, 10**6):
        pieces = [piece async for piece in stream(layout, async_opener(FILES, chunk_bytes))]
        assert pieces == list(stream_sync(layout, opener(FILES, chunk_bytes)))
        assert sum(map(len, pieces)) == layout.size


def test_verification_does_not_change_the_bytes() -> None:
    assert zipped(FILES, verify=False) == zipped(FILES)


# Damage


def damaged(case: str) -> tuple[Files, list[ZipEntry]]:
    """Files, and entries that do not fit the third of them."""
    entries = entries_of(FILES)
    name, body = FILES[2]
    entries[2] = {
        "flipped": ZipEntry(name, len(body), zlib.crc32(body) ^ 1),
        "short": ZipEntry(name, len(body) + 1, zlib.crc32(body)),
        "long": ZipEntry(name, len(body) - 1, zlib.crc32(body[:-1])),
        "short, CRC unknown": ZipEntry(name, len(body) + 1, None),
        "long, CRC unknown": ZipEntry(name, len(body) - 1, None),
        "empty expected": ZipEntry(name, 0, 0),
    }[case]
    return FILES, entries


DAMAGES = ["flipped", "short", "long", "short, CRC unknown", "long, CRC unknown", "empty expected"]


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_ends_the_stream_without_a_zip(case: str) -> None:
    files, entries = damaged(case)
    written = bytearray()
    with pytest.raises(DataLossError) as caught:
        drain(stream_sync(plan(entries), opener(files)), written)
    assert caught.value.metadata == {"entry": "image-3.webp"}
    assert b"PK\x01\x02" not in written
    assert len(written) < plan(entries).directory_offset
    assert not_a_zip(bytes(written))


@pytest.mark.parametrize("case", DAMAGES)
async def test_damage_ends_the_async_stream_without_a_zip(case: str) -> None:
    files, entries = damaged(case)
    written = bytearray()
    with pytest.raises(DataLossError):
        await drain_async(stream(plan(entries), async_opener(files)), written)
    assert not_a_zip(bytes(written))


def test_damage_in_the_last_entry_is_found_too() -> None:
    entries = entries_of(FILES)
    entries[-1] = ZipEntry(MANIFEST_NAME, 3, 5)
    with pytest.raises(DataLossError):
        zipped(FILES, entries)


def test_lengths_are_checked_even_unverified() -> None:
    files, entries = damaged("short")
    with pytest.raises(DataLossError):
        zipped(files, entries, verify=False)


def test_any_cut_is_not_a_zip() -> None:
    files = [("image-1.png", b"one" * 20), ("image-2.jpg", b"two" * 20)]
    data = zipped(files)
    assert all(not_a_zip(data[:length]) for length in range(len(data)))


# Sources and memory


async def test_sources_are_opened_in_turn_and_closed_when_left_early() -> None:
    log: list[str] = []

    async def open_entry(index: int) -> AsyncIterator[bytes]:
        log.append(f"open {index}")
        try:
            yield bytes(COALESCE_BYTES)
            yield bytes(COALESCE_BYTES)
        finally:
            log.append(f"close {index}")

    layout = plan([ZipEntry(f"image-{n}.png", 2 * COALESCE_BYTES, None) for n in range(3)])
    async with aclosing(stream(layout, open_entry)) as pieces:
        async for piece in pieces:
            if len(piece) == COALESCE_BYTES and "open 1" in log:
                break
    assert log == ["open 0", "close 0", "open 1", "close 1"]


def test_a_source_is_closed_when_it_is_wrong() -> None:
    closed: list[int] = []

    def open_entry(index: int) -> Iterator[bytes]:
        try:
            yield b"too long"
        finally:
            closed.append(index)

    with pytest.raises(DataLossError):
        list(stream_sync(plan([ZipEntry("a", 1, None)]), open_entry))
    assert closed == [0]


def test_large_chunks_pass_uncopied_and_small_ones_are_gathered() -> None:
    large = bytes(COALESCE_BYTES)
    layout = plan([ZipEntry("a", len(large), None), ZipEntry("b", len(large), None)])
    tiny = [large[:1000]] * (len(large) // 1000) + [large[: len(large) % 1000]]
    sources: list[list[Piece]] = [[memoryview(large)], [*tiny]]
    pieces = list(stream_sync(layout, lambda index: sources[index]))
    assert len(pieces) == 4  # header, large, header with the tiny ones, trailer
    assert isinstance(pieces[1], memoryview)
    assert pieces[1].obj is large


async def test_memory_stays_below_three_chunks() -> None:
    chunk_bytes, chunks = MIB, 40

    async def open_entry(_: int) -> AsyncIterator[bytes]:
        for number in range(chunks):
            yield bytes([number]) * chunk_bytes

    def open_sync(_: int) -> Iterator[bytes]:
        return (bytes([number]) * chunk_bytes for number in range(chunks))

    layout = plan([ZipEntry("a", chunks * chunk_bytes, None)])
    tracemalloc.start()
    try:
        total = 0
        async for piece in stream(layout, open_entry):
            total += len(piece)
        for piece in stream_sync(layout, open_sync):
            total += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 2 * layout.size
    assert peak < 3 * chunk_bytes


def test_empty_entries_do_not_pile_up() -> None:
    layout = plan([ZipEntry(f"image-{n}.png", 0, 0) for n in range(5_000)])
    pieces = list(stream_sync(layout, lambda _: []))
    assert max(map(len, pieces[:-1])) < 2 * COALESCE_BYTES
    assert sum(map(len, pieces)) == layout.size
