"""An unforgiving zip reader: every byte must be where the format puts it, and none be left."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

MAX_32 = 0xFFFF_FFFF
MAX_16 = 0xFFFF


@dataclass(frozen=True, slots=True)
class StrictEntry:
    """One entry as both of its headers agree to describe it."""

    name: str
    size: int
    crc32: int
    data_offset: int
    descriptor: bool
    local_version: int
    central_version: int
    local_zip64: bool
    central_zip64_values: int


@dataclass(frozen=True, slots=True)
class StrictZip:
    """A whole archive; `zip64_end` says whether the 64-bit end records are there."""

    entries: list[StrictEntry]
    zip64_end: bool


def read_strictly(data: bytes | mmap.mmap) -> StrictZip:
    """Parse a zip without comment, leading bytes, gaps or slack; AssertionError otherwise."""
    total = len(data)
    magic, disk, cd_disk, here, count, cd_size, cd_offset, comment = struct.unpack(
        "<4s4H2IH", data[total - 22 :]
    )
    assert (magic, disk, cd_disk, comment) == (b"PK\x05\x06", 0, 0, 0)
    assert here == count
    end_start = total - 22
    zip64_end = MAX_32 in (cd_size, cd_offset) or count == MAX_16
    if zip64_end:
        short = (count, cd_size, cd_offset)
        end_start, count, cd_size, cd_offset = _zip64_end(data, end_start)
        full = (count, cd_size, cd_offset)
        for value, wide, limit in zip(short, full, (MAX_16, MAX_32, MAX_32), strict=True):
            assert value == min(wide, limit)
        assert count >= MAX_16 or cd_size >= MAX_32 or cd_offset >= MAX_32
    else:
        assert data[end_start - 20 : end_start - 16] != b"PK\x06\x07"
    assert cd_offset + cd_size == end_start
    entries = []
    cursor, position = cd_offset, 0
    for _ in range(count):
        cursor, position, entry = _entry(data, cursor, position)
        entries.append(entry)
    assert cursor == end_start
    assert position == cd_offset, "a gap between the last entry and the directory"
    return StrictZip(entries, zip64_end)


def _zip64_end(data: bytes | mmap.mmap, end_start: int) -> tuple[int, int, int, int]:
    magic, disk, record, disks = struct.unpack("<4sIQI", data[end_start - 20 : end_start])
    assert (magic, disk, disks) == (b"PK\x06\x07", 0, 1)
    assert record == end_start - 76
    magic, length, made, needed, disk, cd_disk, here, count, cd_size, cd_offset = struct.unpack(
        "<4sQ2H2I4Q", data[record : record + 56]
    )
    assert (magic, length, made, needed, disk, cd_disk) == (b"PK\x06\x06", 44, 0x032D, 45, 0, 0)
    assert here == count
    return record, count, cd_size, cd_offset


def _entry(data: bytes | mmap.mmap, cursor: int, position: int) -> tuple[int, int, StrictEntry]:
    """The entry at `cursor` of the directory, which must start at `position`."""
    fixed = struct.unpack("<4s6H3I5H2I", data[cursor : cursor + 46])
    magic, made, central_version, flags, method, time, date, crc32, packed, size = fixed[:10]
    name_length, extra_length, comment, disk, internal, attributes, offset = fixed[10:]
    assert (magic, made, method, time, date) == (b"PK\x01\x02", 0x032D, 0, 0, 0x21)
    assert (comment, disk, internal, attributes) == (0, 0, 0, 0o100644 << 16)
    assert flags in {0, 8}
    assert packed == size
    cursor += 46
    name = data[cursor : cursor + name_length]
    extra = data[cursor + name_length : cursor + name_length + extra_length]
    values = _zip64_values(extra)
    used = len(values)
    if size == MAX_32:
        size, packed = values.pop(0), values.pop(0)
        assert size == packed >= MAX_32
    if offset == MAX_32:
        offset = values.pop(0)
        assert offset >= MAX_32
    assert not values, "a zip64 value that was not needed"
    assert offset == position, "a gap before an entry"
    descriptor = flags == 8
    data_offset, local_version, local_zip64 = _local(
        data, offset, name, size, 0 if descriptor else crc32, descriptor=descriptor
    )
    assert local_zip64 == (size >= MAX_32)
    position = data_offset + size
    if descriptor:
        layout = struct.Struct("<4sI2Q" if local_zip64 else "<4s3I")
        found = layout.unpack(data[position : position + layout.size])
        assert found == (b"PK\x07\x08", crc32, size, size)
        position += layout.size
    entry = StrictEntry(
        name.decode("ascii"),
        size,
        crc32,
        data_offset,
        descriptor,
        local_version,
        central_version,
        local_zip64,
        used,
    )
    return cursor + name_length + extra_length, position, entry


def _local(
    data: bytes | mmap.mmap, offset: int, name: bytes, size: int, crc32: int, *, descriptor: bool
) -> tuple[int, int, bool]:
    """Check a local header; returns (start of the bytes, version needed, has zip64)."""
    fixed = struct.unpack("<4s5H3I2H", data[offset : offset + 30])
    magic, version, flags, method, time, date, crc, packed, full, name_length, extra_length = fixed
    assert (magic, method, time, date) == (b"PK\x03\x04", 0, 0, 0x21)
    assert flags == (8 if descriptor else 0)
    assert crc == crc32
    offset += 30
    assert data[offset : offset + name_length] == name
    offset += name_length
    values = _zip64_values(data[offset : offset + extra_length])
    told = 0 if descriptor else size
    if values:
        assert (packed, full, values) == (MAX_32, MAX_32, [told, told])
    else:
        assert (packed, full) == (told, told)
    return offset + extra_length, version, bool(values)


def _zip64_values(extra: bytes) -> list[int]:
    if not extra:
        return []
    kind, length = struct.unpack("<2H", extra[:4])
    assert kind == 1
    assert length == len(extra) - 4 > 0
    return list(struct.unpack(f"<{length // 8}Q", extra[4:]))
