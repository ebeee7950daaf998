"""Pillow's part: prove that an image decodes, and turn one upright.

Only sanitised bytes come here, never what was uploaded. The format's own plugin class is used
instead of `Image.open`: no other format can be tried, and Pillow's process-wide pixel limit,
which warns through global state, is not what decides (`Limits` is).
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from libs.common.errors import InvalidArgumentError
from services.assets.imaging import refusals
from services.assets.imaging.parts import Part, PartsFile, Sanitised
from services.assets.imaging.sniffing import JPEG, PNG, WEBP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

_JPEG_QUALITY = 95
_WEBP_QUALITY = 95
# Level 6 costs five times the time for a few per cent of the size.
_PNG_COMPRESS_LEVEL = 1
_JPEG_SMALLEST_SCALE = 8
_SAMPLING_444, _SAMPLING_422 = 0, 1


def check_decodes(content_type: str, clean: Sanitised) -> None:
    """Refuse (IMAGE_CORRUPT) what Pillow cannot decode to the end.

    A JPEG is decoded at an eighth of its size, in grey: every coded byte is read, and a
    sixty-fourth of the pixels is made.
    """
    with _decoder_errors():
        image = _open(content_type, clean)
        if content_type == JPEG:
            small = tuple(max(1, side // _JPEG_SMALLEST_SCALE) for side in image.size)
            image.draft("L", (small[0], small[1]))
        image.load()


def upright(content_type: str, clean: Sanitised) -> bytes:
    """The image with its orientation applied, encoded again with its colour profile.

    Lossless formats stay lossless, save that Pillow has 8 bits per channel for 16-bit colour.
    """
    with _decoder_errors():
        image = _open(content_type, clean)
        image.load()
    turned = image.transpose(_methods()[clean.orientation])
    options = _encoder_options(content_type, clean, image)
    if profile := image.info.get("icc_profile"):
        options["icc_profile"] = profile
    out = io.BytesIO()
    turned.save(out, **options)
    return out.getvalue()


def _open(content_type: str, clean: Sanitised) -> ImageFile:
    image = _plugin(content_type)(_file(clean.parts))
    if image.size != (clean.width, clean.height):
        raise refusals.corrupt()
    return image


def _file(parts: Sequence[Part]) -> io.BufferedReader:
    return io.BufferedReader(PartsFile(parts))


def _plugin(content_type: str) -> type[ImageFile]:
    # Lazy: most processes that import this package never decode.
    from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415 - heavy import
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415 - heavy import
    from PIL.WebPImagePlugin import WebPImageFile  # noqa: PLC0415 - heavy import

    return {JPEG: JpegImageFile, PNG: PngImageFile, WEBP: WebPImageFile}[content_type]


def _methods() -> dict[int, Any]:
    from PIL.Image import Transpose  # noqa: PLC0415 - heavy import

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }


def _encoder_options(content_type: str, clean: Sanitised, image: Image) -> dict[str, Any]:
    if content_type == PNG:
        return {"format": "PNG", "compress_level": _PNG_COMPRESS_LEVEL}
    if content_type == WEBP:
        quality = {"lossless": True, "exact": True} if clean.lossless else {}
        return {"format": "WEBP", "quality": _WEBP_QUALITY} | quality
    options: dict[str, Any] = {"format": "JPEG", "quality": _JPEG_QUALITY}
    sampling = _sampling(clean, image)
    return options if sampling is None else options | {"subsampling": sampling}


def _sampling(clean: Sanitised, image: Image) -> int | None:
    """The chroma subsampling to encode with; None leaves it to the encoder."""
    from PIL.JpegImagePlugin import get_sampling  # noqa: PLC0415 - heavy import

    sampling = get_sampling(image)
    if sampling < 0:
        return None
    # Half the columns becomes half the rows when turned by 90 degrees, and that Pillow cannot
    # write; keep all the colour instead.
    sideways = clean.orientation >= 5  # noqa: PLR2004 - 5..8 swap the sides
    return _SAMPLING_444 if sampling == _SAMPLING_422 and sideways else sampling


@contextmanager
def _decoder_errors() -> Iterator[None]:
    try:
        yield
    except (MemoryError, InvalidArgumentError):
        raise
    except Exception:  # noqa: BLE001 - decoders raise a dozen kinds; each means the same here
        raise refusals.corrupt() from None
