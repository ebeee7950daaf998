"""PNG: walk the chunks, refuse what breaks the format, keep only what makes the picture.

Text chunks are dropped unread, so compressed ones are never inflated.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isal import isal_zlib

from services.assets.imaging import exif, icc, refusals
from services.assets.imaging.parts import PartsBuilder, Sanitised
from services.assets.imaging.png_pixels import PngHeader, check_pixels
from services.assets.imaging.sniffing import PNG_SIGNATURE

if TYPE_CHECKING:
    from services.assets.imaging.limits import Limits

# Encoders cut pixel data into pieces of 8 KiB and more: 64,000 in the largest file we take. More
# would only cost time: a chunk may be empty.
MAX_CHUNKS = 100_000

_LENGTH_AND_KIND = struct.Struct(">I4s")
_CRC_BYTES = 4
_HEADER_FIELDS = struct.Struct(">IIBBBBB")
_MAX_PALETTE_BYTES = 768
_MAX_PROFILE_NAME_BYTES = 79

GRAY, RGB, INDEXED, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_BIT_DEPTHS = {
    GRAY: {1, 2, 4, 8, 16},
    RGB: {8, 16},
    INDEXED: {1, 2, 4, 8},
    GRAY_ALPHA: {8, 16},
    RGB_ALPHA: {8, 16},
}
_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
# What a kept ancillary chunk may measure in bytes; of another size it would break readers.
_ANCILLARY_BYTES = {
    b"gAMA": range(4, 5),
    b"cHRM": range(32, 33),
    b"sRGB": range(1, 2),
    b"sBIT": range(1, 5),
    b"pHYs": range(9, 10),
}
_COLOUR = {b"gAMA", b"cHRM", b"sRGB"}


@dataclass(slots=True)
class _Chunk:
    kind: bytes
    start: int
    data: int
    data_end: int

    @property
    def size(self) -> int:
        return self.data_end - self.data

    @property
    def end(self) -> int:
        return self.data_end + _CRC_BYTES


def sanitise_png(view: memoryview, limits: Limits) -> Sanitised:
    """The file with critical chunks, transparency and colour meaning only, its pixels checked.

    Raises:
        InvalidArgumentError: IMAGE_TOO_LARGE (before anything is inflated),
            ANIMATED_NOT_ALLOWED, TRAILING_DATA, IMAGE_CORRUPT.
    """
    header = _read_header(view)
    limits.check_pixels(header.width, header.height)
    walk = _Walk(view, header)
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        chunk = _chunk_at(view, position)
        walk.visit(chunk)
        position = chunk.end
        if chunk.kind == b"IEND":
            break
    else:
        raise refusals.corrupt("the image has too many chunks")
    if position != len(view):
        raise refusals.trailing()
    check_pixels(header, [view[start:end] for start, end in walk.pixel_data])
    return Sanitised(
        parts=walk.kept.parts(),
        width=header.width,
        height=header.height,
        orientation=walk.orientation,
        lossless=True,
        colour=b"".join(walk.colour),
    )


def _read_header(view: memoryview) -> PngHeader:
    first = _chunk_at(view, len(PNG_SIGNATURE))
    if first.kind != b"IHDR" or first.size != _HEADER_FIELDS.size:
        raise refusals.corrupt()
    width, height, depth, colour, compression, filters, interlace = _HEADER_FIELDS.unpack_from(
        view, first.data
    )
    if depth not in _BIT_DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
        raise refusals.corrupt()
    return PngHeader(width, height, depth, colour, interlaced=bool(interlace))


def _chunk_at(view: memoryview, position: int) -> _Chunk:
    if position + _LENGTH_AND_KIND.size > len(view):
        raise refusals.corrupt()
    size, kind = _LENGTH_AND_KIND.unpack_from(view, position)
    data = position + _LENGTH_AND_KIND.size
    chunk = _Chunk(kind, position, data, data + size)
    if chunk.end > len(view) or not kind.isalpha():
        raise refusals.corrupt()
    stored = int.from_bytes(view[chunk.data_end : chunk.end], "big")
    if isal_zlib.crc32(view[position + 4 : chunk.data_end]) != stored:
        raise refusals.corrupt("a checksum of the image does not match")
    return chunk


class _Walk:
    """What has been seen so far; `visit` takes the chunks in their order."""

    def __init__(self, view: memoryview, header: PngHeader) -> None:
        self.kept = PartsBuilder(view)
        self.kept.keep(0, len(PNG_SIGNATURE))
        self.pixel_data: list[tuple[int, int]] = []
        self.orientation = exif.UPRIGHT
        self.colour: list[bytes] = []
        self._view = view
        self._header = header
        self._seen: set[bytes] = set()
        self._last = b""
        self._palette_entries = 0

    def visit(self, chunk: _Chunk) -> None:
        """Keep the chunk, drop it, or refuse the file."""
        if chunk.kind in _ANIMATION:
            raise refusals.animated()
        if chunk.kind == b"IDAT":
            self._pixels(chunk)
        elif self._is_kept(chunk):
            self.kept.keep(chunk.start, chunk.end)
            if chunk.kind in _COLOUR:
                self.colour.append(bytes(self._view[chunk.start : chunk.end]))
        self._seen.add(chunk.kind)
        self._last = chunk.kind

    def _pixels(self, chunk: _Chunk) -> None:
        if b"IDAT" in self._seen and self._last != b"IDAT":
            raise refusals.corrupt()
        if self._header.colour == INDEXED and not self._palette_entries:
            raise refusals.corrupt()
        if chunk.size:
            self.pixel_data.append((chunk.data, chunk.data_end))
        self.kept.keep(chunk.start, chunk.end)

    def _is_kept(self, chunk: _Chunk) -> bool:
        if chunk.kind == b"eXIf":
            if chunk.kind not in self._seen:
                self.orientation = exif.orientation_of(self._view[chunk.data : chunk.data_end])
            return False
        in_place = chunk.kind not in self._seen and b"IDAT" not in self._seen
        if chunk.kind == b"tRNS":
            return self._transparency(chunk, in_place=in_place)
        if chunk.kind[:1].isupper():
            return _must(self._is_lawful_critical(chunk, in_place=in_place))
        if chunk.kind == b"iCCP":
            data = self._view[chunk.data : chunk.data_end]
            return in_place and _is_small_profile_chunk(data)
        return in_place and chunk.size in _ANCILLARY_BYTES.get(chunk.kind, ())

    def _is_lawful_critical(self, chunk: _Chunk, *, in_place: bool) -> bool:
        if chunk.kind == b"IEND":
            return b"IDAT" in self._seen and chunk.size == 0
        if chunk.kind == b"PLTE":
            return in_place and self._palette(chunk)
        # Nobody can show an image rightly that has a critical chunk nobody knows.
        return chunk.kind == b"IHDR" and in_place

    def _palette(self, chunk: _Chunk) -> bool:
        self._palette_entries = chunk.size // 3
        return (
            self._header.colour in {RGB, INDEXED, RGB_ALPHA}
            and chunk.size % 3 == 0
            and 0 < chunk.size <= _MAX_PALETTE_BYTES
        )

    def _transparency(self, chunk: _Chunk, *, in_place: bool) -> bool:
        colour = self._header.colour
        if colour in {GRAY_ALPHA, RGB_ALPHA}:
            return False  # these have an alpha channel, and readers ignore the chunk
        if colour == INDEXED:
            return _must(in_place and 0 < chunk.size <= self._palette_entries)
        return _must(in_place and chunk.size == (2 if colour == GRAY else 6))


def _must(holds: bool) -> bool:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise refusals.corrupt()
    return True


def _is_small_profile_chunk(data: memoryview) -> bool:
    """Whether an iCCP chunk holds a small profile, inflating no more than a small one needs."""
    if len(data) > icc.MAX_PROFILE_BYTES:
        return False
    name, _, method_and_profile = bytes(data).partition(b"\0")
    if not 0 < len(name) <= _MAX_PROFILE_NAME_BYTES or method_and_profile[:1] != b"\0":
        return False
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(method_and_profile[1:], icc.MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return False
    return inflate.eof and not inflate.unused_data and icc.is_small_profile(profile)
