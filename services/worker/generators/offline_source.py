"""Opening the input images of the offline generator: untrusted bytes in, bounded pixels out."""

from __future__ import annotations

import io

from PIL import Image

from libs.common.outcomes import Outcome
from services.worker.generation import GenerationError, Reference

MAX_PIXELS = 25_000_000
"""What assets lets in; checked again before anything is decoded."""

_FORMATS = ("PNG", "JPEG", "WEBP")


def opened(reference: Reference, *, long_side: int) -> Image.Image:
    """The picture, at most `long_side` pixels long, as RGB, or RGBA where it has transparency.

    Raises GenerationError(BAD_INPUT), naming the file, where the bytes are no sound image.
    """
    try:
        with Image.open(io.BytesIO(reference.data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _bad(reference, "has too many pixels")  # noqa: TRY301 - passes right on
            image.draft("RGB", (long_side, long_side))  # JPEG decodes at a fraction of its size
            image.load()
            picture = _eight_bit(image)
    except GenerationError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise whatever a hostile file makes them
        raise _bad(reference, "could not be decoded") from error
    picture.thumbnail((long_side, long_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return picture


def full_size(reference: Reference) -> tuple[int, int]:
    """Width and height as the header says; call after `opened` has found the file sound."""
    with Image.open(io.BytesIO(reference.data), formats=_FORMATS) as image:
        return image.size


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey; convert() would clip them to white
        return image.convert("I").point([v >> 8 for v in range(65536)], "L").convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _bad(reference: Reference, what: str) -> GenerationError:
    return GenerationError(
        Outcome.BAD_INPUT, f"file {reference.file_id} ({reference.role}) {what}", detail="DECODE"
    )
