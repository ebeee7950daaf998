"""Putting a packet of ours into a sanitised file, without encoding it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isal import isal_zlib

from services.assets.imaging import jpeg, webp
from services.assets.imaging.parts import Part, head_of, rest_of, size_of
from services.assets.imaging.sniffing import JPEG, PNG, PNG_SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Sequence

_JPEG_NAMESPACE = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_MAX_PACKET_BYTES = 65_533 - len(_JPEG_NAMESPACE)
# Keyword, then: not compressed, no method, no language, no translated keyword.
_PNG_KEYWORD = b"XML:com.adobe.xmp\0\0\0\0\0"
# The signature and the header chunk, which always comes first and is always as long.
_PNG_HEADER_BYTES = len(PNG_SIGNATURE) + 25
_WEBP_HEAD_BYTES = webp.RIFF_HEADER_BYTES + webp.EXTENDED_CHUNK_BYTES


def with_xmp(parts: Sequence[Part], content_type: str, packet: bytes) -> list[Part]:
    """The file with an XMP packet in it, as parts; the image's own bytes are untouched.

    Args:
        parts: a sanitised file, as `inspect_image` returns it (so one without XMP).
        content_type: image/png, image/jpeg or image/webp.
        packet: UTF-8 XML; for JPEG at most 65,504 bytes.

    Raises:
        ValueError: the packet does not fit into a JPEG segment.
    """
    if content_type == PNG:
        return _insert(parts, _PNG_HEADER_BYTES, _png_chunk(b"iTXt", _PNG_KEYWORD + packet))
    if content_type == JPEG:
        if len(packet) > _JPEG_MAX_PACKET_BYTES:
            raise ValueError("the XMP packet is too long for one JPEG segment")
        segment = jpeg.app_segment(0xE1, _JPEG_NAMESPACE + packet)
        return _insert(parts, _after_jfif(parts), segment)
    return _webp_with_xmp(parts, packet)


def with_colour(parts: Sequence[Part], chunks: bytes) -> list[Part]:
    """A PNG file with whole chunks of another put behind its header."""
    return _insert(parts, _PNG_HEADER_BYTES, chunks) if chunks else list(parts)


def _insert(parts: Sequence[Part], offset: int, made: bytes) -> list[Part]:
    return [head_of(parts, offset), made, *rest_of(parts, offset)]


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum: int = isal_zlib.crc32(kind + data)
    return len(data).to_bytes(4, "big") + kind + data + checksum.to_bytes(4, "big")


def _after_jfif(parts: Sequence[Part]) -> int:
    """JFIF must stay first: the offset behind it, or behind the start of the image."""
    head = head_of(parts, 6)
    if head[2:4] == b"\xff\xe0":
        return 4 + int.from_bytes(head[4:6], "big")
    return 2


def _webp_with_xmp(parts: Sequence[Part], packet: bytes) -> list[Part]:
    head = head_of(parts, _WEBP_HEAD_BYTES)
    chunk = b"XMP " + len(packet).to_bytes(4, "little") + packet + b"\0" * (len(packet) % 2)
    if head[12:16] == b"VP8X":
        flagged = bytes((head[20] | webp.FLAG_XMP,))
        extended = head[12:20] + flagged + head[21:]
        rest = rest_of(parts, _WEBP_HEAD_BYTES)
    else:
        frame = webp.read_frame(head[webp.RIFF_HEADER_BYTES :])
        flags = webp.FLAG_XMP | (webp.FLAG_ALPHA if frame.alpha else 0)
        extended = webp.extended_chunk(flags, frame.width, frame.height)
        rest = rest_of(parts, webp.RIFF_HEADER_BYTES)
    size = len(extended) + size_of(rest) + len(chunk)
    return [webp.riff_header(size) + extended, *rest, chunk]
