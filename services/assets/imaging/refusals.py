"""Why an image is refused: one function per reason, so that each reason has one wording."""

from __future__ import annotations

from libs.common.errors import InvalidArgumentError


def empty() -> InvalidArgumentError:
    """EMPTY_FILE: there is nothing in it."""
    return InvalidArgumentError("the file is empty", reason="EMPTY_FILE")


def file_too_large(max_bytes: int) -> InvalidArgumentError:
    """FILE_TOO_LARGE: more bytes than the limit."""
    return InvalidArgumentError(
        f"the file is larger than {max_bytes} bytes",
        reason="FILE_TOO_LARGE",
        metadata={"maxBytes": str(max_bytes)},
    )


def unsupported(
    message: str = "the file is not a PNG, JPEG or WebP image",
) -> InvalidArgumentError:
    """UNSUPPORTED_IMAGE_TYPE: not one of the formats, or a form of one nobody can show."""
    return InvalidArgumentError(message, reason="UNSUPPORTED_IMAGE_TYPE")


def type_mismatch(content_type: str) -> InvalidArgumentError:
    """TYPE_MISMATCH: the content is of another type than was declared."""
    return InvalidArgumentError(
        f"the declared type differs from the content, which is {content_type}",
        reason="TYPE_MISMATCH",
        metadata={"contentType": content_type},
    )


def trailing() -> InvalidArgumentError:
    """TRAILING_DATA: bytes that are not part of the image follow it."""
    return InvalidArgumentError("there is data after the end of the image", reason="TRAILING_DATA")


def too_many_pixels(max_pixels: int, max_side: int) -> InvalidArgumentError:
    """IMAGE_TOO_LARGE: more pixels, or a longer side, than the limit."""
    return InvalidArgumentError(
        f"the image has more than {max_pixels} pixels or a side longer than {max_side}",
        reason="IMAGE_TOO_LARGE",
        metadata={"maxPixels": str(max_pixels), "maxSide": str(max_side)},
    )


def animated() -> InvalidArgumentError:
    """ANIMATED_NOT_ALLOWED: more than a still image."""
    return InvalidArgumentError("animated images are not allowed", reason="ANIMATED_NOT_ALLOWED")


def corrupt(message: str = "the image is damaged or cut short") -> InvalidArgumentError:
    """IMAGE_CORRUPT: the format's own rules are broken."""
    return InvalidArgumentError(message, reason="IMAGE_CORRUPT")
