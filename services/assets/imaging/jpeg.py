"""JPEG: walk the segments and the entropy-coded data, keep only what makes the picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.assets.imaging import exif, icc, refusals
from services.assets.imaging.parts import Part, PartsBuilder, Sanitised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.assets.imaging.limits import Limits

# A colour photo has about 10 scans when progressive; each one costs a pass over every pixel, and
# an empty one only 20 bytes of the file.
MAX_SCANS = 100
# An ICC profile or XMP is cut into 64 KiB segments; more of them than this would only cost time.
MAX_SEGMENTS = 10_000

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
_DHT, _DAC, _DQT, _DRI, _COM = 0xC4, 0xCC, 0xDB, 0xDD, 0xFE
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_FRAMES = range(0xC0, 0xD0)
_FRAMES_SHOWN = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; all Huffman-coded
_TABLES = {_DHT, _DQT, _DRI}
_KNOWN = {*_FRAMES, SOS, _DQT, _DRI, *range(_APP0, _APP15 + 1), _COM} - {0xC8}

# Searching by pattern runs in C on any buffer. Within entropy-coded data FF00 is a byte of data,
# FFD0..FFD7 restarts, and FFFF padding; anything else after FF is the next marker.
_FILL = re.compile(rb"\xff+")
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PADDING = re.compile(rb"\x00*")

_JFIF_BYTES = 14
_ADOBE_BYTES = 12
_ICC_PREFIX = b"ICC_PROFILE\0"
_ICC_HEADER_BYTES = len(_ICC_PREFIX) + 2


@dataclass(frozen=True, slots=True)
class Segment:
    """One marker at `start`, its payload at `data`..`data_end`; `end` is past any scan data."""

    marker: int
    start: int
    data: int
    data_end: int
    end: int


@dataclass(frozen=True, slots=True)
class _Frame:
    width: int
    height: int


def sanitise_jpeg(view: memoryview, limits: Limits) -> Sanitised:
    """The file with its tables, frame and scans; of the rest JFIF, Adobe and a small profile.

    Further images that a multi-picture file (MPF: phones' gain maps and previews) carries behind
    the first are dropped; anything else behind the end is refused.

    Raises:
        InvalidArgumentError: IMAGE_TOO_LARGE, TRAILING_DATA, UNSUPPORTED_IMAGE_TYPE (lossless,
            arithmetic-coded and the like), IMAGE_CORRUPT.
    """
    segments = list(_segments(view, 0))
    header, scans = _split_at_first_scan(segments)
    frame = _frame_of(view, segments, header)
    limits.check_pixels(frame.width, frame.height)
    if sum(segment.marker == SOS for segment in scans) > MAX_SCANS:
        raise refusals.corrupt("the image has too many scans")
    _check_end(view, header, segments[-1].end)
    return Sanitised(
        parts=_keep(view, header, scans),
        width=frame.width,
        height=frame.height,
        orientation=_orientation_of(view, header),
        lossless=False,
    )


def _segments(view: memoryview, position: int) -> Iterator[Segment]:
    """Every segment of the image that starts at position, SOI and EOI with it."""
    yield Segment(SOI, position, position + 2, position + 2, position + 2)
    position += 2
    for _ in range(MAX_SEGMENTS):
        fill = _FILL.match(view, position)
        if fill is None or fill.end() >= len(view):
            raise refusals.corrupt()
        start, marker, data = fill.end() - 1, view[fill.end()], fill.end() + 3
        if marker == EOI:
            yield Segment(EOI, start, start + 2, start + 2, start + 2)
            return
        size = int.from_bytes(view[data - 2 : data], "big")
        data_end = data - 2 + size
        if marker not in _KNOWN or size < 2 or data_end > len(view):  # noqa: PLR2004 - own bytes
            raise refusals.corrupt()
        position = _end_of_scan(view, data_end) if marker == SOS else data_end
        yield Segment(marker, start, data, data_end, position)
    raise refusals.corrupt("the image has too many segments")


def _end_of_scan(view: memoryview, position: int) -> int:
    marker = _NEXT_MARKER.search(view, position)
    if marker is None:
        raise refusals.corrupt()
    return marker.start()


def _split_at_first_scan(segments: Sequence[Segment]) -> tuple[list[Segment], list[Segment]]:
    for index, segment in enumerate(segments):
        if segment.marker == SOS:
            return list(segments[:index]), list(segments[index:])
    raise refusals.corrupt()


def _frame_of(view: memoryview, segments: Sequence[Segment], header: Sequence[Segment]) -> _Frame:
    frames = [s for s in segments if s.marker in _FRAMES and s.marker not in {_DHT, _DAC}]
    if len(frames) != 1 or frames[0] not in header:
        raise refusals.corrupt()
    data = view[frames[0].data : frames[0].data_end]
    if frames[0].marker not in _FRAMES_SHOWN:
        raise refusals.unsupported("this kind of JPEG is not supported")
    if len(data) < 6 or len(data) != 6 + 3 * data[5]:  # noqa: PLR2004 - depth, sides, channels
        raise refusals.corrupt()
    if data[0] != 8 or data[5] not in {1, 3, 4}:  # noqa: PLR2004 - bits per channel, channels
        raise refusals.unsupported("this kind of JPEG is not supported")
    return _Frame(height=int.from_bytes(data[1:3], "big"), width=int.from_bytes(data[3:5], "big"))


def _check_end(view: memoryview, header: Sequence[Segment], end: int) -> None:
    """Refuse bytes after the image, unless all of them are further images of an MPF file."""
    if end == len(view):
        return
    if not any(_starts(view, segment, _APP2, b"MPF\0") for segment in header):
        raise refusals.trailing()
    while end < len(view):
        if bytes(view[end : end + 3]) != b"\xff\xd8\xff":
            raise refusals.trailing()
        for segment in _segments(view, end):
            end = segment.end
        padding = _PADDING.match(view, end)
        end = padding.end() if padding else end


def _orientation_of(view: memoryview, header: Sequence[Segment]) -> int:
    for segment in header:
        if _starts(view, segment, _APP1, b"Exif\0\0"):
            return exif.orientation_of(view[segment.data : segment.data_end])
    return exif.UPRIGHT


def _keep(view: memoryview, header: Sequence[Segment], scans: Sequence[Segment]) -> list[Part]:
    kept = PartsBuilder(view)
    profile = _profile_segments(view, header)
    jfif = next((s for s in header if _is_app(view, s, _APP0, b"JFIF\0", _JFIF_BYTES)), None)
    # Decoders go by the last Adobe segment.
    adobe = next(
        (s for s in reversed(header) if _is_app(view, s, _APP14, b"Adobe", _ADOBE_BYTES)), None
    )
    for segment in header:
        if segment is jfif:
            # A thumbnail may follow the 12 bytes that matter; it is told to have no pixels.
            _keep_app(kept, view, segment, bytes(view[segment.data : segment.data + 12]) + b"\0\0")
        elif segment is adobe:
            _keep_app(kept, view, segment, bytes(view[segment.data : segment.data + _ADOBE_BYTES]))
        elif segment.marker in _FRAMES_SHOWN | _TABLES | {SOI} or segment in profile:
            kept.keep(segment.start, segment.end)
    for segment in scans:
        if segment.marker in _TABLES | {SOS, EOI}:
            kept.keep(segment.start, segment.end)
    return kept.parts()


def _keep_app(kept: PartsBuilder, view: memoryview, segment: Segment, payload: bytes) -> None:
    if view[segment.data : segment.data_end] == payload:
        kept.keep(segment.start, segment.end)
    else:
        kept.add(app_segment(segment.marker, payload))


def app_segment(marker: int, payload: bytes) -> bytes:
    """A whole application segment: marker, length, payload of at most 65,533 bytes."""
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def _profile_segments(view: memoryview, header: Sequence[Segment]) -> list[Segment]:
    """The segments of the colour profile, when it is whole, in order and small; else none."""
    found = [s for s in header if _is_app(view, s, _APP2, _ICC_PREFIX, _ICC_HEADER_BYTES)]
    numbers = [bytes(view[s.data + len(_ICC_PREFIX) : s.data + _ICC_HEADER_BYTES]) for s in found]
    if any(pair != (i, len(found)) for i, pair in enumerate(map(tuple, numbers), start=1)):
        return []
    if sum(s.data_end - s.data for s in found) > icc.MAX_PROFILE_BYTES:
        return []
    profile = b"".join(view[s.data + _ICC_HEADER_BYTES : s.data_end] for s in found)
    return found if icc.is_small_profile(profile) else []


def _is_app(view: memoryview, segment: Segment, marker: int, prefix: bytes, least: int) -> bool:
    return _starts(view, segment, marker, prefix) and segment.data_end - segment.data >= least


def _starts(view: memoryview, segment: Segment, marker: int, prefix: bytes) -> bool:
    payload = view[segment.data : min(segment.data + len(prefix), segment.data_end)]
    return segment.marker == marker and payload == prefix
