"""WebP: walk the RIFF chunks, keep the still image, its alpha and a small colour profile."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.assets.imaging import exif, icc, refusals
from services.assets.imaging.parts import Part, PartsBuilder, Sanitised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.assets.imaging.limits import Limits

# A still image has at most six chunks that mean something; more would only cost time.
MAX_CHUNKS = 10_000

RIFF_HEADER_BYTES = 12
EXTENDED_CHUNK_BYTES = 18
FLAG_PROFILE, FLAG_ALPHA, FLAG_XMP, FLAG_ANIMATION = 0x20, 0x10, 0x04, 0x02

_CHUNK_HEADER = struct.Struct("<4sI")
_EXTENDED_BYTES = 10
_LOSSY_HEADER_BYTES = 10
_LOSSLESS_HEADER_BYTES = 5
_LOSSLESS_MAGIC = 0x2F
_SIDE_MASK = 0x3FFF


@dataclass(frozen=True, slots=True)
class Frame:
    """What the header of a still image says; sides in pixels."""

    width: int
    height: int
    alpha: bool
    lossless: bool


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    start: int
    data: int
    data_end: int

    @property
    def end(self) -> int:
        return self.data_end + (self.data_end - self.data) % 2


def sanitise_webp(view: memoryview, limits: Limits) -> Sanitised:
    """The file with its image, alpha and small profile only, sizes and flags to match.

    Raises:
        InvalidArgumentError: IMAGE_TOO_LARGE, ANIMATED_NOT_ALLOWED, TRAILING_DATA,
            IMAGE_CORRUPT.
    """
    chunks = _chunks(view, _end_of_riff(view))
    extended = chunks[0] if chunks and chunks[0].kind == b"VP8X" else None
    if extended is not None:
        _check_extended(view, extended, limits)
    if any(chunk.kind in {b"ANIM", b"ANMF"} for chunk in chunks):
        raise refusals.animated()
    images = [chunk for chunk in chunks if chunk.kind in {b"VP8 ", b"VP8L"}]
    if not images or (extended is None and images[0] is not chunks[0]):
        raise refusals.corrupt()
    frame = read_frame(bytes(view[images[0].start : images[0].data_end][:18]))
    limits.check_pixels(frame.width, frame.height)
    if extended is None:
        kept = [images[0]]
    else:
        if len(images) > 1 or _canvas(view, extended) != (frame.width, frame.height):
            raise refusals.corrupt()
        kept = _kept_of_extended(view, chunks, images[0])
    notes = [chunk for chunk in chunks if chunk.kind == b"EXIF"] if extended else []
    turned = exif.orientation_of(view[notes[0].data : notes[0].data_end]) if notes else exif.UPRIGHT
    return Sanitised(
        parts=_rebuild(view, extended, kept),
        width=frame.width,
        height=frame.height,
        orientation=turned,
        lossless=frame.lossless,
    )


def read_frame(chunk: bytes) -> Frame:
    """The header of a `VP8 ` or `VP8L` chunk, from its first 18 bytes; IMAGE_CORRUPT if none."""
    data = chunk[8:]
    if chunk[:4] == b"VP8 ":
        key_frame = len(data) >= _LOSSY_HEADER_BYTES and not data[0] & 1
        if not key_frame or data[3:6] != b"\x9d\x01\x2a":
            raise refusals.corrupt()
        width, height = struct.unpack_from("<HH", data, 6)
        return Frame(width & _SIDE_MASK, height & _SIDE_MASK, alpha=False, lossless=False)
    if len(data) < _LOSSLESS_HEADER_BYTES or data[0] != _LOSSLESS_MAGIC:
        raise refusals.corrupt()
    (bits,) = struct.unpack_from("<I", data, 1)
    if bits >> 29:  # a version nobody knows
        raise refusals.corrupt()
    return Frame(
        width=(bits & _SIDE_MASK) + 1,
        height=(bits >> 14 & _SIDE_MASK) + 1,
        alpha=bool(bits >> 28 & 1),
        lossless=True,
    )


def riff_header(content_bytes: int) -> bytes:
    """The first 12 bytes of a file whose chunks come to `content_bytes`."""
    return b"RIFF" + (content_bytes + 4).to_bytes(4, "little") + b"WEBP"


def extended_chunk(flags: int, width: int, height: int) -> bytes:
    """A whole VP8X chunk."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return _CHUNK_HEADER.pack(b"VP8X", _EXTENDED_BYTES) + bytes((flags, 0, 0, 0)) + sides


def _end_of_riff(view: memoryview) -> int:
    size = int.from_bytes(view[4:8], "little")
    end = 8 + size
    if end > len(view) or end < RIFF_HEADER_BYTES:
        raise refusals.corrupt()
    # An odd size is against the format, but written by some, then with one byte of padding.
    if end != len(view) and not (size % 2 and bytes(view[end:]) == b"\0"):
        raise refusals.trailing()
    return len(view)


def _chunks(view: memoryview, end: int) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    position = RIFF_HEADER_BYTES
    while position < end:
        if position + _CHUNK_HEADER.size > end or len(chunks) == MAX_CHUNKS:
            raise refusals.corrupt()
        kind, size = _CHUNK_HEADER.unpack_from(view, position)
        data = position + _CHUNK_HEADER.size
        chunk = _Chunk(kind, position, data, data + size)
        if chunk.end > end:
            raise refusals.corrupt()
        chunks.append(chunk)
        position = chunk.end
    return chunks


def _check_extended(view: memoryview, extended: _Chunk, limits: Limits) -> None:
    if extended.data_end - extended.data != _EXTENDED_BYTES:
        raise refusals.corrupt()
    limits.check_pixels(*_canvas(view, extended))
    if view[extended.data] & FLAG_ANIMATION:
        raise refusals.animated()


def _canvas(view: memoryview, extended: _Chunk) -> tuple[int, int]:
    width = int.from_bytes(view[extended.data + 4 : extended.data + 7], "little") + 1
    height = int.from_bytes(view[extended.data + 7 : extended.data + 10], "little") + 1
    return width, height


def _kept_of_extended(view: memoryview, chunks: Sequence[_Chunk], image: _Chunk) -> list[_Chunk]:
    before = chunks[: chunks.index(image)]
    profiles = [c for c in before if c.kind == b"ICCP"][:1]
    alphas = [c for c in before if c.kind == b"ALPH"][:1] if image.kind == b"VP8 " else []
    small = [c for c in profiles if icc.is_small_profile(view[c.data : c.data_end])]
    if small and alphas and small[0].start > alphas[0].start:
        raise refusals.corrupt()
    return [*small, *alphas, image]


def _rebuild(view: memoryview, extended: _Chunk | None, kept: Sequence[_Chunk]) -> list[Part]:
    size = sum(chunk.end - chunk.start for chunk in kept)
    out = PartsBuilder(view)
    if extended is None:
        _keep_or_add(out, view, 0, riff_header(size))
    else:
        profile = FLAG_PROFILE if kept[0].kind == b"ICCP" else 0
        flags = view[extended.data] & FLAG_ALPHA | profile
        _keep_or_add(out, view, 0, riff_header(size + EXTENDED_CHUNK_BYTES))
        _keep_or_add(out, view, extended.start, extended_chunk(flags, *_canvas(view, extended)))
    for chunk in kept:
        if chunk.end == chunk.data_end or view[chunk.data_end] == 0:
            out.keep(chunk.start, chunk.end)
        else:
            out.keep(chunk.start, chunk.data_end)
            out.add(b"\0")
    return out.parts()


def _keep_or_add(out: PartsBuilder, view: memoryview, start: int, wanted: bytes) -> None:
    if view[start : start + len(wanted)] == wanted:
        out.keep(start, start + len(wanted))
    else:
        out.add(wanted)
