"""Which colour profiles are kept: small ones that are what they say."""

from __future__ import annotations

# sRGB and Display P3 profiles are 0.4 to 4 KiB; the largest sRGB one in use has 60.
MAX_PROFILE_BYTES = 64 * 1024

_HEADER_BYTES = 128
_MAX_PADDING_BYTES = 3


def is_small_profile(profile: bytes | memoryview) -> bool:
    """Whether this is an ICC profile of at most 64 KiB with nothing behind it."""
    if not _HEADER_BYTES <= len(profile) <= MAX_PROFILE_BYTES:
        return False
    declared = int.from_bytes(profile[:4], "big")
    padding = len(profile) - declared
    return profile[36:40] == b"acsp" and 0 <= padding <= _MAX_PADDING_BYTES
