"""Bytes that are almost a message."""

from __future__ import annotations

from random import Random

MAX_BYTES = 3 * 1024 * 1024  # below what the transport takes
_ODD = (
    b"\0",
    b"\xff",
    b"\xff" * 11,  # a varint without end
    b"\x0a\xff\xff\xff\xff\x07",  # a length past the end
    b"\x0b",  # a group that does not end
    b"\x0c",  # a group that was not begun
    b"\x00\x01",  # field number 0
    b"\x0a\x02\xff\xfe",  # not UTF-8
    b"\x0a\x03\xed\xa0\x80",  # a lone surrogate
    b"\xc2\x3e\x05hello",  # an unknown field
    b"\xfa\xff\xff\xff\x0f\x00",  # the highest field number
    b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # -2^63 in the first field
    b"\x08\x80\x00",  # a varint that is longer than it need be
    b"\x0d\x00\x00\xc0\x7f",  # the first field as a fixed 32
)


def _nested(data: bytes, tag: bytes, depth: int) -> bytes:
    for _ in range(depth):
        if len(data) > 2**14:
            break
        size, length = len(data), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        data = tag + length + bytes([size]) + data
    return data


def mutated(random: Random, data: bytes) -> bytes:
    """The bytes changed in one to four places, cut short, doubled or wrapped."""
    raw = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(raw))
        how = random.choice(("flip", "cut", "double", "put", "drop", "nest", "again"))
        if how == "flip" and at < len(raw):
            raw[at] ^= 1 << random.randrange(8)
        elif how == "cut":
            del raw[at:]
        elif how == "double":
            raw[at:at] = raw[at : at + random.choice((1, 2, 8, 64))]
        elif how == "put":
            raw[at:at] = random.choice((*_ODD, random.randbytes(6)))
        elif how == "drop":
            del raw[at : at + random.choice((1, 2, 8))]
        elif how == "nest":
            tag = random.choice((b"\x0a", b"\x12", b"\x3a", b"\x32", b"\xc2\x3e"))
            raw[:] = _nested(bytes(raw), tag, random.choice((1, 3, 99, 101, 1000)))
        elif how == "again":
            raw += bytes(raw)  # of each field that is not repeated, the last word counts
    return bytes(raw[:MAX_BYTES])
