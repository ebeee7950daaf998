"""The offline generator's stand-in for a text model: fixed words, no key, no network."""

from __future__ import annotations

import zlib

WORDS = tuple(
    f"Light: {light}. Lens: {lens}. Composition: {composition}."
    for light, lens, composition in (
        ("soft daylight from the left", "85 mm at f/8", "centred, with calm space all around"),
        ("warm late sun, long shadows", "50 mm at f/2.8", "on the left third, with depth behind"),
        ("bright light from both sides", "100 mm at f/11", "close, the material fills the frame"),
    )
)


def words_for(prompt: str) -> str:
    """One of WORDS, the same for the same prompt."""
    return WORDS[zlib.crc32(prompt.encode()) % len(WORDS)]
