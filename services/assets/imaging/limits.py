"""How large an image may be."""

from __future__ import annotations

from dataclasses import dataclass

from services.assets.imaging import refusals

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused, judged from the header before any decoding.

    Attributes:
        max_pixels: width times height. Memory at its peak is, for each of them, 16 bytes for a
            WebP, 3 for a progressive JPEG and next to none for others; 8 more where an image
            is turned upright.
        max_side: the longer side, in pixels.
        max_bytes: size of the file as received. One that is turned upright is encoded again
            and may come out larger.
    """

    max_pixels: int = 25_000_000
    max_side: int = 12_000
    max_bytes: int = 10 * _MIB

    def check_file(self, size_bytes: int) -> None:
        """Refuse no bytes (EMPTY_FILE) and too many (FILE_TOO_LARGE)."""
        if size_bytes == 0:
            raise refusals.empty()
        if size_bytes > self.max_bytes:
            raise refusals.file_too_large(self.max_bytes)

    def check_pixels(self, width: int, height: int) -> None:
        """Refuse no pixels (IMAGE_CORRUPT) and too many (IMAGE_TOO_LARGE)."""
        if width == 0 or height == 0:
            raise refusals.corrupt("the image has no pixels")
        if width * height > self.max_pixels or max(width, height) > self.max_side:
            raise refusals.too_many_pixels(self.max_pixels, self.max_side)


UPLOAD_LIMITS = Limits()

# 100 megapixels also stay below the 179 at which Pillow refuses on its own account.
GENERATED_LIMITS = Limits(max_pixels=100_000_000, max_side=16_384, max_bytes=500 * _MIB)
