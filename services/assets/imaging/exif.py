"""The one thing read out of EXIF before it is dropped: which way is up."""

from __future__ import annotations

import struct

UPRIGHT = 1

_PREFIX = b"Exif\0\0"
_TAG_ORIENTATION = 0x0112
_TYPE_SHORT = 3
_TYPE_LONG = 4
_ENTRY_BYTES = 12
_MAX_ORIENTATION = 8
# Cameras write a few dozen entries; a count from a hostile file is not worth more.
_MAX_ENTRIES = 512


def orientation_of(exif: memoryview) -> int:
    """Orientation 1..8 of an EXIF block, with or without its `Exif` prefix.

    Anything unreadable means upright: a broken note about an image is no reason to refuse it.
    """
    if exif[: len(_PREFIX)] == _PREFIX:
        exif = exif[len(_PREFIX) :]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(exif[:4]))
    if order is None:
        return UPRIGHT
    try:
        return _from_first_directory(exif, order)
    except struct.error:
        return UPRIGHT


def _from_first_directory(tiff: memoryview, order: str) -> int:
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for index in range(min(entries, _MAX_ENTRIES)):
        entry = directory + 2 + index * _ENTRY_BYTES
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, entry)
        if tag != _TAG_ORIENTATION or count != 1 or kind not in {_TYPE_SHORT, _TYPE_LONG}:
            continue
        (value,) = struct.unpack_from(
            order + ("H" if kind == _TYPE_SHORT else "I"), tiff, entry + 8
        )
        return int(value) if UPRIGHT <= value <= _MAX_ORIENTATION else UPRIGHT
    return UPRIGHT
