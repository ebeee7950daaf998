"""The imaging room: what is refused, and with which reason."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib

import pytest

from libs.common.errors import InvalidArgumentError
from services.assets.imaging import (
    GENERATED_LIMITS,
    Limits,
)
from tests.fixtures import images
from tests.fixtures.inspections import KINDS, inspected, refusal


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?><svg/>",
        images.HTML,
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"GIF89a/*",
        images.frames("GIF"),
        images.encoded("BMP"),
        images.encoded("TIFF"),
        images.encoded("ICO"),
        images.encoded("AVIF"),
        images.zip_file(),
        b"\x89PNG\n\x1a\n" + bytes(40),
        b"RIFF\x04\0\0\0WAVE",
        b"\xff\xd8",
        b"\0",
        b" " + images.encoded("PNG"),
    ],
)
def test_other_types_are_refused(data: bytes) -> None:
    assert refusal(data) == "UNSUPPORTED_IMAGE_TYPE"


def test_sizes_of_files_are_limited() -> None:
    assert refusal(b"") == "EMPTY_FILE"
    data = images.encoded("PNG")
    assert refusal(data, Limits(max_bytes=len(data) - 1)) == "FILE_TOO_LARGE"
    assert inspected(data, Limits(max_bytes=len(data))).size == len(data)


def test_the_declared_type_must_be_the_real_one() -> None:
    png, jpeg = images.encoded("PNG"), images.encoded("JPEG")
    for declared in ("image/jpeg", "image/svg+xml", "text/html", "image/png2"):
        assert refusal(png, declared=declared) == "TYPE_MISMATCH"
    for allowed in ("image/png", "IMAGE/PNG; charset=binary", "", None):
        assert inspected(png, declared_type=allowed).content_type == "image/png"
    assert inspected(jpeg, declared_type="image/jpg").content_type == "image/jpeg"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "tail", [b"\0", b"\n", images.HTML, images.zip_file(), images.encoded("JPEG"), b"IEND"]
)
def test_bytes_after_the_image_are_refused(kind: str, tail: bytes) -> None:
    assert refusal(images.encoded(kind) + tail) == "TRAILING_DATA"
    assert refusal(images.DIRTY[kind]() + tail) == "TRAILING_DATA"


def test_bytes_behind_the_pixels_of_a_png_are_refused() -> None:
    raw = b"\0\1\2\3" * 2
    packed = zlib.compress(raw)
    for pixels in (packed + images.zip_file(), zlib.compress(raw + b"\0\1\2\3")):
        data = images.png_header(1, 2) + images.png_chunk(b"IDAT", pixels)
        assert refusal(data + images.png_chunk(b"IEND")) == "TRAILING_DATA"
    two = images.png_chunk(b"IDAT", packed) + images.png_chunk(b"IDAT", images.zip_file())
    assert refusal(images.png_header(1, 2) + two + images.png_chunk(b"IEND")) == "TRAILING_DATA"


def test_no_image_is_a_zip_as_well() -> None:
    hidden = images.zip_file()
    assert len(hidden) <= 600
    squeeze = zlib.compressobj(0)  # stored, so that the row stands in the file as it is
    pixels = squeeze.compress(b"\0" + hidden.ljust(600, b"\0")) + squeeze.flush()
    png = images.png_header(200, 1) + images.png_chunk(b"IDAT", pixels) + images.png_chunk(b"IEND")
    jpeg = images.encoded("JPEG")[:-2] + hidden.replace(b"\xff", b"") + b"\xff\xd9"
    webp = images.riff((b"VP8 ", images.riff_chunks(images.encoded("WEBP"))[0][1] + hidden))
    for data in (png, jpeg, webp):
        assert zipfile.is_zipfile(io.BytesIO(data))
        assert refusal(data) == "TRAILING_DATA"


def test_bombs_are_refused_by_their_header() -> None:
    bomb = images.png_bomb(9400)
    assert len(bomb) < 16_000
    jpeg = bytearray(images.encoded("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    webp = images.riff(images.extended(16_000, 16_000, 0), (b"VP8 ", bytes(10)))
    lossless = images.riff((b"VP8L", b"\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14)))
    huge = images.png_header(2**31 - 1, 2**31 - 1)
    tracemalloc.start()
    try:
        for data in (bomb, bytes(jpeg), webp, lossless, huge):
            assert refusal(data) == "IMAGE_TOO_LARGE"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_pixels_and_sides_are_limited_apart() -> None:
    data = images.encoded("PNG", images.picture(40, 24))
    assert refusal(data, Limits(max_pixels=40 * 24 - 1)) == "IMAGE_TOO_LARGE"
    assert refusal(data, Limits(max_side=39)) == "IMAGE_TOO_LARGE"
    assert inspected(data, Limits(max_pixels=40 * 24, max_side=40)).width == 40
    with pytest.raises(InvalidArgumentError) as caught:
        inspected(data, Limits(max_pixels=10, max_side=20))
    assert caught.value.metadata == {"maxPixels": "10", "maxSide": "20"}


def test_checking_a_large_png_takes_no_memory_for_its_pixels() -> None:
    data = images.png_bomb(9400)
    tracemalloc.start()
    try:
        assert inspected(data, GENERATED_LIMITS).width == 9400
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_animations_are_refused() -> None:
    assert refusal(images.frames("PNG")) == "ANIMATED_NOT_ALLOWED"
    assert refusal(images.frames("WEBP")) == "ANIMATED_NOT_ALLOWED"
    one = images.with_png_chunks(
        images.encoded("PNG"), images.png_chunk(b"acTL", struct.pack(">II", 1, 0))
    )
    assert refusal(one) == "ANIMATED_NOT_ALLOWED"
    hidden = images.riff(
        images.extended(40, 24, 0), *images.riff_chunks(images.encoded("WEBP")), (b"ANMF", b"")
    )
    assert refusal(hidden) == "ANIMATED_NOT_ALLOWED"


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_refused(kind: str) -> None:
    data = images.DIRTY[kind](1, images.picture(9, 7))
    for length in range(12, len(data)):
        assert refusal(data[:length]) in {"IMAGE_CORRUPT", "UNSUPPORTED_IMAGE_TYPE"}


def broken_pngs() -> dict[str, bytes]:
    png, header, end = images.encoded("PNG"), images.png_header(1, 1), images.png_chunk(b"IEND")
    pixel = images.png_chunk(b"IDAT", zlib.compress(b"\0\1\2\3"))
    gray = (
        images.png_header(1, 1, colour=0)
        + b"%s"
        + images.png_chunk(b"IDAT", zlib.compress(b"\0\1"))
        + end
    )
    palette = images.png_header(1, 1, colour=3)
    index = images.png_chunk(b"IDAT", zlib.compress(b"\0\0"))
    chunk = images.png_chunk
    crooked = bytearray(png)
    crooked[-16] ^= 1
    return {
        "checksum": bytes(crooked),
        "header checksum": png[:29] + b"\0\0\0\0" + png[33:],
        "no width": images.png_of(0, 1, b"\0"),
        "no height": images.png_of(1, 0, b""),
        "no pixels": header + end,
        "empty pixels": header + chunk(b"IDAT") + end,
        "no end": header + pixel,
        "end not empty": header + pixel + chunk(b"IEND", b"x"),
        "length past the end": header + b"\0\0\xff\xffIDAT" + bytes(100),
        "largest length": header + b"\xff\xff\xff\xffIDAT" + bytes(100),
        "bad name": header + chunk(b"a\0bc") + pixel + end,
        "two headers": header + images.png_header(1, 1)[8:] + pixel + end,
        "header not first": images.PNG_SIGNATURE + chunk(b"gAMA", bytes(4)) + header[8:] + end,
        "unknown critical chunk": header + chunk(b"CgBI", bytes(4)) + pixel + end,
        "bit depth": images.png_of(1, 1, b"\0\1\2\3", depth=4),
        "colour type": images.png_of(1, 1, b"\0\1\2\3", colour=5),
        "interlace": images.png_of(1, 1, b"\0\1\2\3", lace=2),
        "filter": images.png_of(1, 2, b"\0\1\2\3\5\1\2\3"),
        "rows missing": images.png_of(1, 3, b"\0\1\2\3"),
        "not zlib": header + chunk(b"IDAT", b"hello world") + end,
        "zlib checksum": header + chunk(b"IDAT", zlib.compress(b"\0\1\2\3")[:-1] + b"x") + end,
        "zlib cut": header + chunk(b"IDAT", zlib.compress(b"\0\1\2\3")[:-4]) + end,
        "pixels apart": header + pixel + chunk(b"tEXt", b"k\0v") + chunk(b"IDAT") + end,
        "no palette": palette + index + end,
        "palette late": palette + index + chunk(b"PLTE", bytes(3)) + end,
        "palette size": palette + chunk(b"PLTE", bytes(4)) + index + end,
        "palette twice": palette + chunk(b"PLTE", bytes(3)) * 2 + index + end,
        "palette too long": palette + chunk(b"PLTE", bytes(771)) + index + end,
        "palette in gray": gray % chunk(b"PLTE", bytes(3)),
        "transparency size": gray % chunk(b"tRNS", bytes(3)),
        "transparency twice": gray % (chunk(b"tRNS", bytes(2)) * 2),
        "transparency without palette": palette + chunk(b"tRNS", b"\0") + index + end,
        "too many chunks": header + chunk(b"vpAg") * 100_001 + pixel + end,
    }


@pytest.mark.parametrize(("name", "data"), broken_pngs().items(), ids=broken_pngs().keys())
def test_broken_pngs_are_refused(name: str, data: bytes) -> None:
    assert refusal(data) == "IMAGE_CORRUPT", name


def broken_jpegs() -> dict[str, bytes]:
    jpeg, segment = images.encoded("JPEG"), images.jpeg_segment
    progressive = images.encoded("JPEG", progressive=True)
    frame = jpeg.index(b"\xff\xc0")
    frame_end = frame + 2 + 17
    scan = jpeg.index(b"\xff\xda")
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]

    def patched(at: int, value: bytes) -> bytes:
        return jpeg[:at] + value + jpeg[at + len(value) :]

    return {
        "no end": jpeg[:-2],
        "no scan": jpeg[:scan] + b"\xff\xd9",
        "no frame": jpeg[:frame] + jpeg[frame_end:],
        "two frames": jpeg[:frame] + jpeg[frame:frame_end] * 2 + jpeg[frame_end:],
        "no width": patched(frame + 7, b"\0\0"),
        "no height": patched(frame + 5, b"\0\0"),
        "frame size": patched(frame + 2, b"\0\x08"),
        "length of 1": jpeg[:2] + b"\xff\xe1\0\x01" + jpeg[2:],
        "length past the end": jpeg[:2] + b"\xff\xe1\xff\xff" + jpeg[2:],
        "junk between": jpeg[:2] + b"\xff\xe1\0\x02junk" + jpeg[2:],
        "start within": jpeg[:20] + b"\xff\xd8" + jpeg[20:],
        "reserved marker": jpeg[:20] + segment(0x02, b"") + jpeg[20:],
        "late height": jpeg[:-2] + segment(0xDC, b"\0\x18") + jpeg[-2:],
        "no tables": jpeg[:20] + jpeg[frame:],
        "only padding": jpeg[:3] + b"\xff" * 50,
        "scans without end": progressive[:-2] + last_scan * 101 + b"\xff\xd9",
        "segments without end": jpeg[:20] + segment(0xFE, b"") * 10_001 + jpeg[20:],
    }


@pytest.mark.parametrize(("name", "data"), broken_jpegs().items(), ids=broken_jpegs().keys())
def test_broken_jpegs_are_refused(name: str, data: bytes) -> None:
    assert refusal(data) == "IMAGE_CORRUPT", name


@pytest.mark.parametrize(("marker", "depth"), [(0xC3, 8), (0xC9, 8), (0xCB, 8), (0xC0, 12)])
def test_kinds_of_jpeg_that_nobody_shows_are_refused(marker: int, depth: int) -> None:
    jpeg = bytearray(images.encoded("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 1], jpeg[frame + 4] = marker, depth
    assert refusal(bytes(jpeg)) == "UNSUPPORTED_IMAGE_TYPE"


def broken_webps() -> dict[str, bytes]:
    webp = images.encoded("WEBP")
    (chunk,) = images.riff_chunks(webp)
    canvas = images.extended(40, 24, 0)
    lossless = images.riff_chunks(images.encoded("WEBP", lossless=True))[0][1]
    return {
        "cut": webp[:-2],
        "no chunks": images.riff(),
        "size too large": webp[:4] + struct.pack("<I", len(webp)) + webp[8:],
        "size too small": b"RIFF\0\0\0\0WEBP",
        "chunk past the end": webp[:16] + b"\xff\xff\xff\xff" + webp[20:],
        "image not first": images.riff((b"JUNK", b"ab"), chunk),
        "no image": images.riff(canvas),
        "two images": images.riff(canvas, chunk, chunk),
        "another canvas": images.riff(images.extended(41, 24, 0), chunk),
        "canvas size": images.riff((b"VP8X", canvas[1] + b"\0\0"), chunk),
        "no key frame": images.riff((b"VP8 ", b"\1" + chunk[1][1:])),
        "no start code": images.riff((b"VP8 ", chunk[1][:3] + b"abc" + chunk[1][6:])),
        "no width": images.riff((b"VP8 ", chunk[1][:6] + b"\0\0" + chunk[1][8:])),
        "short header": images.riff((b"VP8 ", chunk[1][:8])),
        "half the image": images.riff((b"VP8 ", chunk[1][: len(chunk[1]) // 2])),
        "lossless magic": images.riff((b"VP8L", b"x" + lossless[1:])),
        "lossless version": images.riff((b"VP8L", lossless[:4] + b"\xff" + lossless[5:])),
        "half lossless": images.riff((b"VP8L", lossless[: len(lossless) // 2])),
        "too many chunks": images.riff(canvas, chunk, *[(b"JUNK", b"")] * 10_001),
    }


@pytest.mark.parametrize(("name", "data"), broken_webps().items(), ids=broken_webps().keys())
def test_broken_webps_are_refused(name: str, data: bytes) -> None:
    assert refusal(data) == "IMAGE_CORRUPT", name


def test_refusals_do_not_repeat_the_callers_bytes_or_the_decoders_words() -> None:
    for data in (*broken_pngs().values(), *broken_jpegs().values(), *broken_webps().values()):
        with pytest.raises(InvalidArgumentError) as caught:
            inspected(data)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
