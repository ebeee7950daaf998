"""Where every byte of a zip goes, known before one is read: equal entries give equal bytes.

Entries are STORED (the images are compressed already), so every offset, and the size of the
whole, follows from names and sizes. Whoever stores the archive can therefore announce its
length, and a second packager after a crash writes the same bytes: dates, order, modes and
versions are fixed.

Format: PKWARE APPNOTE 6.3, sections named where a line depends on one. zip64 appears exactly
where a number does not fit its classic field, so ordinary archives open with every reader.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from libs.common.errors import DataLossError, InternalError

MAX_NAME_BYTES = 255

# All ones means "look in the zip64 fields" (APPNOTE 4.4.1.4), so these values count as too large.
_MAX_32 = 0xFFFF_FFFF
_MAX_16 = 0xFFFF
_MAX_ZIP_BYTES = 2**63 - 1

_MADE_BY = (3 << 8) | 45  # unix, by version 4.5 of the format
_VERSION_STORED = 10
_VERSION_DESCRIPTOR = 20
_VERSION_ZIP64 = 45
_FLAG_DESCRIPTOR = 0x0008  # UTF-8 (0x0800) is never set: names are ASCII
_METHOD_STORED = 0
_DOS_TIME = 0
_DOS_DATE = (1 << 5) | 1  # 1980-01-01, the first day the format knows
_ATTRIBUTES = 0o100644 << 16  # a regular file, rw-r--r--
_ZIP64_EXTRA_ID = 0x0001

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END_ZIP64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_ZIP64 = struct.Struct("<4sIQI")
_DESCRIPTOR = struct.Struct("<4s3I")
_DESCRIPTOR_ZIP64 = struct.Struct("<4sI2Q")
_EXTRA_HEAD = struct.Struct("<2H")

# A segment may not end in a dot: Windows drops it, and "." and ".." are out with it.
_SEGMENT = r"[A-Za-z0-9._-]*[A-Za-z0-9_-]"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One file of a zip.

    Attributes:
        name: its path in the zip, made by us: `[A-Za-z0-9._/-]`, relative, no `..`.
        size: exact length in bytes.
        crc32: CRC-32 of its bytes where it is known (the reader can then verify while it
            streams), else None: a data descriptor follows the bytes. Readers that stream
            (java.util.zip.ZipInputStream) refuse STORED with a descriptor: give it if you can.
    """

    name: str
    size: int
    crc32: int | None

    @property
    def is_zip64(self) -> bool:
        """Whether its size needs 64-bit fields."""
        return self.size >= _MAX_32


@dataclass(frozen=True, slots=True)
class ZipPlan:
    """Where every byte of a zip goes; made by `plan`.

    Attributes:
        entries: in the order of the zip.
        offsets: where each entry's local header starts, in bytes.
        directory_offset: where the central directory starts, in bytes.
        size: of the whole zip, in bytes.
    """

    entries: tuple[ZipEntry, ...]
    offsets: tuple[int, ...]
    directory_offset: int
    size: int

    def local_header(self, index: int) -> bytes:
        """What stands before the bytes of entry `index` (from 0)."""
        entry = self.entries[index]
        streamed = entry.crc32 is None
        # With a descriptor to come, CRC and sizes here are zero (APPNOTE 4.4.4, bit 3); the
        # zip64 field must stand nevertheless, as it makes the descriptor's sizes 64-bit.
        size = 0 if streamed else entry.size
        extra = _zip64_extra(size, size) if entry.is_zip64 else b""
        name = entry.name.encode("ascii")
        return (
            _LOCAL.pack(
                b"PK\x03\x04",
                _version_needed(entry, zip64=entry.is_zip64),
                _FLAG_DESCRIPTOR if streamed else 0,
                _METHOD_STORED,
                _DOS_TIME,
                _DOS_DATE,
                entry.crc32 or 0,
                _MAX_32 if entry.is_zip64 else size,
                _MAX_32 if entry.is_zip64 else size,
                len(name),
                len(extra),
            )
            + name
            + extra
        )

    def descriptor(self, index: int, crc32: int) -> bytes:
        """What stands behind the bytes of entry `index`: nothing where its CRC was known."""
        entry = self.entries[index]
        if entry.crc32 is not None:
            return b""
        layout = _DESCRIPTOR_ZIP64 if entry.is_zip64 else _DESCRIPTOR
        return layout.pack(b"PK\x07\x08", crc32, entry.size, entry.size)

    def trailer(self, crcs: Sequence[int]) -> bytes:
        """The central directory and the end of the zip: about 50 bytes + name per entry.

        Args:
            crcs: CRC-32 of every entry, in order.

        Raises:
            DataLossError: one differs from what the entry's local header says.
        """
        for entry, crc32 in zip(self.entries, crcs, strict=True):
            if entry.crc32 not in (None, crc32):
                raise checksum_error(entry)
        parts = [
            _central_header(entry, offset, crc32)
            for entry, offset, crc32 in zip(self.entries, self.offsets, crcs, strict=True)
        ]
        directory_bytes = sum(map(len, parts))
        parts.append(_end_of_zip(len(self.entries), directory_bytes, self.directory_offset))
        return b"".join(parts)


def plan(entries: Iterable[ZipEntry]) -> ZipPlan:
    """The layout of a zip of these entries, in this order; reads none of their bytes.

    Raises:
        InternalError: a name, size or CRC that no zip of ours may have, or names that would
            overwrite each other when unpacked (compared without case, as some disks do).
    """
    entries = tuple(entries)
    _check(entries)
    offsets = []
    position = directory_bytes = 0
    for entry in entries:
        name_bytes = len(entry.name)
        offsets.append(position)
        directory_bytes += _CENTRAL.size + name_bytes + len(_central_extra(entry, position))
        position += _LOCAL.size + name_bytes + entry.size
        if entry.is_zip64:
            position += _EXTRA_HEAD.size + 16
        if entry.crc32 is None:
            position += (_DESCRIPTOR_ZIP64 if entry.is_zip64 else _DESCRIPTOR).size
    end = _end_of_zip(len(entries), directory_bytes, position)
    size = position + directory_bytes + len(end)
    if size > _MAX_ZIP_BYTES:
        raise InternalError("the archive would be larger than a zip can be")
    return ZipPlan(entries, tuple(offsets), position, size)


def zip_size(entries: Iterable[ZipEntry]) -> int:
    """The exact size in bytes of the zip of these entries; raises as `plan` does."""
    return plan(entries).size


def _check(entries: Sequence[ZipEntry]) -> None:
    files: set[str] = set()
    folders: set[str] = set()
    for position, entry in enumerate(entries):
        name = entry.name
        if len(name) > MAX_NAME_BYTES or ".." in name or not _NAME.fullmatch(name):
            raise InternalError(f"archive entry {position} has a name that is not allowed")
        if entry.size < 0 or not (entry.crc32 is None or 0 <= entry.crc32 <= _MAX_32):
            raise InternalError(f"archive entry {position} has an impossible size or CRC")
        folded = name.lower()
        if folded in files:
            raise InternalError(f"archive entry {position} has the name of an earlier one")
        files.add(folded)
        steps = folded.split("/")
        folders.update("/".join(steps[:depth]) for depth in range(1, len(steps)))
    if not files.isdisjoint(folders):
        raise InternalError("an archive entry has the name of another one's folder")


def _version_needed(entry: ZipEntry, *, zip64: bool) -> int:
    if zip64:
        return _VERSION_ZIP64
    return _VERSION_STORED if entry.crc32 is not None else _VERSION_DESCRIPTOR


def _zip64_extra(*values: int) -> bytes:
    return struct.pack(f"<2H{len(values)}Q", _ZIP64_EXTRA_ID, 8 * len(values), *values)


def _central_extra(entry: ZipEntry, offset: int) -> bytes:
    """The zip64 field with just the numbers that do not fit, in its fixed order (4.5.3)."""
    values = [entry.size, entry.size] if entry.is_zip64 else []
    if offset >= _MAX_32:
        values.append(offset)
    return _zip64_extra(*values) if values else b""


def _central_header(entry: ZipEntry, offset: int, crc32: int) -> bytes:
    extra = _central_extra(entry, offset)
    name = entry.name.encode("ascii")
    return (
        _CENTRAL.pack(
            b"PK\x01\x02",
            _MADE_BY,
            _version_needed(entry, zip64=bool(extra)),
            _FLAG_DESCRIPTOR if entry.crc32 is None else 0,
            _METHOD_STORED,
            _DOS_TIME,
            _DOS_DATE,
            crc32,
            min(entry.size, _MAX_32),
            min(entry.size, _MAX_32),
            len(name),
            len(extra),
            0,  # comment length
            0,  # disk number
            0,  # internal attributes: not known to be text
            _ATTRIBUTES,
            min(offset, _MAX_32),
        )
        + name
        + extra
    )


def _end_of_zip(count: int, directory_bytes: int, directory_offset: int) -> bytes:
    end = _END.pack(
        b"PK\x05\x06",
        0,  # this disk
        0,  # the directory's disk
        min(count, _MAX_16),
        min(count, _MAX_16),
        min(directory_bytes, _MAX_32),
        min(directory_offset, _MAX_32),
        0,  # comment length
    )
    if count < _MAX_16 and directory_bytes < _MAX_32 and directory_offset < _MAX_32:
        return end
    record = _END_ZIP64.pack(
        b"PK\x06\x06",
        _END_ZIP64.size - 12,  # without its signature and this field (4.3.14.1)
        _MADE_BY,
        _VERSION_ZIP64,
        0,  # this disk
        0,  # the directory's disk
        count,
        count,
        directory_bytes,
        directory_offset,
    )
    locator = _LOCATOR_ZIP64.pack(b"PK\x06\x07", 0, directory_offset + directory_bytes, 1)
    return record + locator + end


def checksum_error(entry: ZipEntry) -> DataLossError:
    """What to raise when an entry's bytes do not have its CRC."""
    return DataLossError(
        "a file of the archive does not match its checksum", metadata={"entry": entry.name}
    )
