"""Files as a list of slices: kept, joined, hashed and read without copying them together."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import WriteableBuffer

Part = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Digest:
    """What the stored bytes come to: size in bytes, sha256 in hex, CRC-32 as in zip files."""

    size: int
    sha256: str
    crc32: int


@dataclass(frozen=True, slots=True)
class Sanitised:
    """A file without its metadata, not yet decoded.

    Attributes:
        parts: the file, mostly slices of what came in.
        width: of the stored pixels, before orientation.
        height: likewise.
        orientation: EXIF orientation 1..8 that the dropped metadata asked for.
        lossless: whether encoding again must not lose anything.
        colour: PNG chunks that say what the colours mean; an encoder would lose them.
    """

    parts: list[Part]
    width: int
    height: int
    orientation: int
    lossless: bool
    colour: bytes = b""


class PartsBuilder:
    """Collects what is kept of one buffer; neighbours become one slice.

    Joining neighbours keeps a file of a hundred thousand small chunks from becoming a list of
    as many objects.
    """

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._parts: list[Part] = []
        self._start = self._end = 0

    def keep(self, start: int, end: int) -> None:
        """Keep view[start:end]; calls come in the order of the file."""
        if start == self._end:
            self._end = end
            return
        self._flush()
        self._start, self._end = start, end

    def add(self, made: bytes) -> None:
        """Put bytes of ours here."""
        self._flush()
        self._parts.append(made)

    def parts(self) -> list[Part]:
        """Everything kept so far."""
        self._flush()
        return self._parts

    def _flush(self) -> None:
        if self._end > self._start:
            self._parts.append(self._view[self._start : self._end])
        self._start = self._end


class PartsFile(io.RawIOBase):
    """Parts as a readable, seekable file."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self._parts = parts
        self._size = size_of(parts)
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset in bytes from start, here or end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Offset in bytes from the start."""
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer as far as one part goes."""
        out = memoryview(cast("bytearray", buffer)).cast("B")
        skip = self._at
        for part in self._parts:
            if skip < len(part):
                count = min(len(out), len(part) - skip)
                out[:count] = part[skip : skip + count]
                self._at += count
                return count
            skip -= len(part)
        return 0


def size_of(parts: Sequence[Part]) -> int:
    """Size of the whole in bytes."""
    return sum(len(part) for part in parts)


def head_of(parts: Sequence[Part], count: int) -> bytes:
    """The first `count` bytes, or fewer where there are no more."""
    head = bytearray()
    for part in parts:
        head += part[: count - len(head)]
        if len(head) >= count:
            break
    return bytes(head)


def tail_of(parts: Sequence[Part], count: int) -> bytes:
    """The last `count` bytes, or fewer where there are no more."""
    return b"".join(rest_of(parts, max(0, size_of(parts) - count)))


def rest_of(parts: Sequence[Part], offset: int) -> list[Part]:
    """Everything from `offset` on."""
    rest: list[Part] = []
    for part in parts:
        if offset < len(part):
            rest.append(part[offset:])
        offset = max(0, offset - len(part))
    return rest


def digest_of(parts: Sequence[Part]) -> Digest:
    """Size, sha256 and CRC-32 of the whole, in one pass."""
    sha256 = hashlib.sha256()
    crc32 = 0
    for part in parts:
        sha256.update(part)
        crc32 = isal_zlib.crc32(part, crc32)
    return Digest(size=size_of(parts), sha256=sha256.hexdigest(), crc32=crc32)
