"""What a file is, by its first bytes alone."""

from __future__ import annotations

from services.assets.imaging import refusals

PNG = "image/png"
JPEG = "image/jpeg"
WEBP = "image/webp"

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
# A zip is read from its end: this record, with no other disks, in the last 64 KiB and 22 bytes.
_ZIP_END = b"PK\x05\x06\0\0\0\0"
ZIP_END_BYTES = 22 + 0xFFFF

_LONGEST_MAGIC_BYTES = 12

# Names that browsers and old tools give to the same type.
_ALIASES = {"image/jpg": JPEG, "image/pjpeg": JPEG, "image/x-png": PNG}


def sniff(view: memoryview) -> str:
    """The content type by magic bytes; UNSUPPORTED_IMAGE_TYPE for everything else."""
    head = bytes(view[:_LONGEST_MAGIC_BYTES])
    if head.startswith(PNG_SIGNATURE):
        return PNG
    if head.startswith(_JPEG_START):
        return JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    raise refusals.unsupported()


def check_declared(declared_type: str | None, content_type: str) -> None:
    """Refuse a declared type that differs from the content (TYPE_MISMATCH); None declares nothing.

    Parameters after a semicolon, letter case and the usual aliases make no difference.
    """
    if not declared_type:
        return
    declared = declared_type.partition(";")[0].strip().lower()
    if _ALIASES.get(declared, declared) != content_type:
        raise refusals.type_mismatch(content_type)


def check_no_archive(tail: bytes) -> None:
    """Refuse (TRAILING_DATA) an image whose last ZIP_END_BYTES would open as a zip archive."""
    if _ZIP_END in tail:
        raise refusals.trailing()
