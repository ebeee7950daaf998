"""The door of this room: bytes in; what may be stored, and what it is, out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.assets.imaging import decoding, exif
from services.assets.imaging.jpeg import sanitise_jpeg
from services.assets.imaging.parts import Part, Sanitised, digest_of, tail_of
from services.assets.imaging.png import sanitise_png
from services.assets.imaging.sniffing import (
    JPEG,
    PNG,
    WEBP,
    ZIP_END_BYTES,
    check_declared,
    check_no_archive,
    sniff,
)
from services.assets.imaging.webp import sanitise_webp
from services.assets.imaging.xmp import with_colour, with_xmp

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

    from services.assets.imaging.limits import Limits

_SANITISE: dict[str, Callable[[memoryview, Limits], Sanitised]] = {
    PNG: sanitise_png,
    JPEG: sanitise_jpeg,
    WEBP: sanitise_webp,
}


@dataclass(frozen=True, slots=True)
class Inspected:
    """An image that may be stored.

    Attributes:
        content_type: image/png, image/jpeg or image/webp, by its content.
        width: in pixels, as shown (orientation applied).
        height: likewise.
        parts: the file to store; slices of the input, which must outlive them (an mmap cannot
            be closed before they are gone).
        size: of the file to store, in bytes.
        sha256: of the file to store, in hex.
        crc32: of the file to store, as zip files have it.
    """

    content_type: str
    width: int
    height: int
    parts: list[Part]
    size: int
    sha256: str
    crc32: int


def inspect_image(
    data: bytes | memoryview | mmap.mmap,
    *,
    declared_type: str | None,
    limits: Limits,
    xmp: bytes | None = None,
) -> Inspected:
    """Judge an image and strip it of metadata; its pixels and its coded bytes stay as they are.

    The one exception is an EXIF orientation: it is applied, and the image encoded again.
    Inspecting what was returned returns the same bytes.

    Args:
        data: the whole file.
        declared_type: the MIME type the caller gave, or None.
        limits: what is too large.
        xmp: an XMP packet of ours to store in the file, and to hash with it.

    Raises:
        InvalidArgumentError: EMPTY_FILE, FILE_TOO_LARGE, UNSUPPORTED_IMAGE_TYPE, TYPE_MISMATCH,
            IMAGE_TOO_LARGE, ANIMATED_NOT_ALLOWED, TRAILING_DATA or IMAGE_CORRUPT.
    """
    view = memoryview(data).cast("B")
    limits.check_file(len(view))
    content_type = sniff(view)
    check_declared(declared_type, content_type)
    sanitise = _SANITISE[content_type]
    clean = sanitise(view, limits)
    if clean.orientation != exif.UPRIGHT:
        encoded = decoding.upright(content_type, clean)
        coloured = with_colour([encoded], clean.colour)
        clean = sanitise(memoryview(b"".join(coloured)), limits)
    elif content_type != PNG:  # a PNG's pixels were checked on the way
        decoding.check_decodes(content_type, clean)
    check_no_archive(tail_of(clean.parts, ZIP_END_BYTES))
    parts = clean.parts if xmp is None else with_xmp(clean.parts, content_type, xmp)
    digest = digest_of(parts)
    return Inspected(
        content_type=content_type,
        width=clean.width,
        height=clean.height,
        parts=parts,
        size=digest.size,
        sha256=digest.sha256,
        crc32=digest.crc32,
    )
