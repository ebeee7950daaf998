"""The generator, played: small PNGs that say for whom they were made, or a failure."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections import Counter
from random import Random

from libs.common.outcomes import Outcome
from services.worker.generation import GeneratedImage, GenerationError, ImageRequest, Usage, Words
from tests.fixtures.images import png_of

MARK_BYTES = 12  # the pixels of one row of four
_FATES = (
    (0.04, Outcome.RATE_LIMITED),
    (0.08, Outcome.OVERLOADED),
    (0.11, Outcome.OUTPUT_BLOCKED),
    (0.13, Outcome.NO_IMAGE),
    (0.15, Outcome.TEXT_ONLY),
)


def png(mark: bytes) -> bytes:
    """An image of four pixels: the mark."""
    return png_of(4, 1, b"\0" + mark)


def mark_in(data: bytes) -> bytes:
    """The pixels of such an image, whatever was written into its file meanwhile."""
    at = data.index(b"IDAT")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    return zlib.decompress(data[at + 4 : at + 4 + size])[1:]


class FatefulGenerator:
    """Makes images of four pixels, or fails as providers do.

    Attributes:
        made: for which slot, by mark.
    """

    name = "fateful"

    def __init__(self, random: Random) -> None:
        self._random = random
        self.faulty = True
        self.calls = Counter[str]()
        self.made: dict[bytes, tuple[int, int]] = {}

    def model_for(self, quality: str) -> str:
        """One model, governed."""
        return f"sim-{quality}"

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        """An image, after a while."""
        fate = self._random.random() if self.faulty else 1.0
        await asyncio.sleep(self._random.uniform(0.1, 4.0))
        for share, outcome in _FATES:
            if fate < share:
                self.calls[outcome.value] += 1
                raise GenerationError(outcome, "no")
        if fate < 0.2:  # noqa: PLR2004
            self.calls["hung"] += 1
            await asyncio.sleep(3600.0)
        self.calls["made"] += 1
        mark = self._random.randbytes(MARK_BYTES)
        self.made[mark] = (request.job_id, request.index)
        return GeneratedImage(png(mark), "image/png", "sim-fast", Usage(1, 2, 3))

    @property
    def prompt_model(self) -> str:
        """None."""
        return ""

    async def enhance(self, prompt: str) -> Words:
        """Never asked."""
        raise NotImplementedError(prompt)

    async def close(self) -> None:
        """Nothing to close."""
