"""The imaging room: what is stripped, and that pixels stay what they were."""

from __future__ import annotations

import io
import mmap
import struct
import threading
import tracemalloc
import warnings
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageOps
from PIL.Image import Transpose

from services.assets.imaging import (
    GENERATED_LIMITS,
    UPLOAD_LIMITS,
    digest_of,
    inspect_image,
)
from tests.fixtures import images
from tests.fixtures.inspections import (
    HARMLESS_INFO,
    KINDS,
    MARKS,
    TYPES,
    VARIANTS,
    inspected,
    largest_difference,
    refusal,
    same_pixels,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


# Which picture a reader sees for each EXIF orientation.
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_image_is_kept_to_the_byte_in_one_slice(kind: str) -> None:
    data = images.encoded(kind)
    result = inspected(data, declared_type=TYPES[kind])
    assert result.content_type == TYPES[kind]
    assert (result.width, result.height) == (40, 24)
    assert stored(result) == data
    assert [type(part) for part in result.parts] == [memoryview]
    assert (result.size, result.crc32) == (len(data), zlib.crc32(data))
    digest = digest_of([data])
    assert (result.sha256, result.crc32) == (digest.sha256, digest.crc32)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_buffer_gives_the_same_answer(kind: str, tmp_path: Path) -> None:
    data = images.DIRTY[kind]()
    wanted = inspected(data)
    assert stored(inspect_image(memoryview(data), declared_type=None, limits=UPLOAD_LIMITS)) == (
        stored(wanted)
    )
    path = tmp_path / "image"
    path.write_bytes(data)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    result = inspect_image(mapped, declared_type=None, limits=UPLOAD_LIMITS)
    assert (stored(result), result.sha256) == (stored(wanted), wanted.sha256)


@pytest.mark.parametrize(("kind", "mode", "options"), VARIANTS)
def test_stripping_changes_no_pixel(kind: str, mode: str, options: dict[str, Any]) -> None:
    source = images.picture(mode="L" if mode == "I;16" else mode)
    if mode == "RGBA":
        source.putalpha(Image.linear_gradient("L").resize(source.size))
    if mode == "I;16":
        source = source.convert("I;16")
    if kind == "PNG":
        data = images.encoded(kind, source, **options)
        data = images.with_png_chunks(data, images.png_chunk(b"tEXt", b"k\0" + images.TEXT_MARK))
    else:
        data = images.DIRTY[kind](1, source, **options)
    result = inspected(data)
    assert stored(result) != data
    assert same_pixels(images.decoded(stored(result), kind), images.decoded(data, kind))
    assert stored(inspected(stored(result))) == stored(result)


def test_noise_with_every_byte_value_keeps_its_pixels_as_jpeg() -> None:
    noise = Image.effect_noise((200, 120), 120)
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 3}):
        data = images.dirty_jpeg(1, noise, quality=100, **options)
        assert same_pixels(
            images.decoded(stored(inspected(data)), "JPEG"), images.decoded(data, "JPEG")
        )


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_is_gone_and_the_colour_profile_stays(kind: str) -> None:
    data = images.DIRTY[kind]()
    assert all(mark in data for mark in (images.GPS_MARK, images.XMP_MARK, images.TEXT_MARK))
    clean = stored(inspected(data))
    assert not [mark for mark in MARKS if mark in clean]
    image = images.decoded(clean, kind)
    assert image.info["icc_profile"] == images.profile()
    assert set(image.info) <= HARMLESS_INFO
    assert not dict(image.getexif())
    assert not zipfile.is_zipfile(io.BytesIO(clean))


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "P", "1")),
        *(("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")),
        ("JPEG", "RGB", {"subsampling": 1}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGB", {}),
    ],
)
def test_orientation_is_applied(turn: int, kind: str, mode: str, options: dict[str, Any]) -> None:
    source = images.picture(mode=mode)
    data = images.DIRTY[kind](turn, source, **options)
    wanted = images.decoded(data, kind).transpose(TURNS[turn])
    assert same_pixels(ImageOps.exif_transpose(images.decoded(data, kind)), wanted)
    result = inspected(data)
    assert (result.width, result.height) == wanted.size
    got = images.decoded(stored(result), kind)
    if kind == "PNG" or options.get("lossless"):
        assert same_pixels(got, wanted)
    else:
        assert largest_difference(got, wanted) <= 24
    assert not [mark for mark in MARKS if mark in stored(result)]
    assert got.info["icc_profile"] == images.profile()
    assert stored(inspected(stored(result))) == stored(result)


def test_turning_a_png_keeps_what_its_colours_and_transparency_mean() -> None:
    source = images.picture(mode="P")
    data = images.with_png_chunks(
        images.encoded("PNG", source, transparency=3),
        images.png_chunk(b"gAMA", struct.pack(">I", 45455)),
        images.png_chunk(b"eXIf", images.exif(6)),
    )
    got = images.decoded(stored(inspected(data)), "PNG")
    assert got.info["gamma"] == pytest.approx(0.45455)
    wanted = images.decoded(data, "PNG").convert("RGBA").transpose(Transpose.ROTATE_270)
    assert got.convert("RGBA").tobytes() == wanted.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"MM\0*",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        images.exif(0),
        images.exif(9),
        images.exif(6)[:16],
    ],
)
def test_unreadable_exif_means_upright(kind: str, note: bytes) -> None:
    data = {
        "PNG": images.with_png_chunks(images.encoded("PNG"), images.png_chunk(b"eXIf", note)),
        "JPEG": images.with_jpeg_segments(
            images.encoded("JPEG"), images.jpeg_segment(0xE1, b"Exif\0\0" + note)
        ),
        "WEBP": images.riff(
            images.extended(40, 24, 8),
            *images.riff_chunks(images.encoded("WEBP")),
            (b"EXIF", note),
        ),
    }[kind]
    assert (inspected(data).width, inspected(data).height) == (40, 24)


@pytest.mark.parametrize("size", [70_000, 10_000_000])
def test_large_profiles_are_dropped(size: int) -> None:
    huge = images.profile(size)
    limits = GENERATED_LIMITS  # a 10 MB profile alone is past the size of an upload
    base = images.riff_chunks(images.encoded("WEBP"))
    for data in (
        images.with_png_chunks(
            images.encoded("PNG"), images.png_chunk(b"iCCP", b"huge\0\0" + zlib.compress(huge))
        ),
        images.with_jpeg_segments(images.encoded("JPEG"), *images.jpeg_profile_segments(huge)),
        images.riff(images.extended(40, 24, 0x20), (b"ICCP", huge), *base),
    ):
        result = inspected(data, limits)
        assert result.size < 5_000
        assert b"acsp" not in stored(result)
        assert stored(inspected(stored(result))) == stored(result)


def test_profiles_that_are_none_are_dropped() -> None:
    for fake in (b"x" * 200, images.profile()[:-8], images.profile() + images.zip_file()):
        jpeg = images.with_jpeg_segments(
            images.encoded("JPEG"), *images.jpeg_profile_segments(fake)
        )
        png = images.with_png_chunks(
            images.encoded("PNG"), images.png_chunk(b"iCCP", b"n\0\0" + zlib.compress(fake))
        )
        assert "icc_profile" not in images.decoded(stored(inspected(jpeg)), "JPEG").info
        assert "icc_profile" not in images.decoded(stored(inspected(png)), "PNG").info


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_text_bombs_are_dropped_unread(kind: bytes) -> None:
    data = images.with_png_chunks(images.encoded("PNG"), images.text_bomb(kind))
    tracemalloc.start()
    try:
        result = inspected(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored(result) == images.encoded("PNG")
    assert peak < 2_000_000


def test_a_jfif_thumbnail_is_dropped() -> None:
    jpeg = images.encoded("JPEG")
    thumbnail = images.jpeg_segment(0xE0, jpeg[6:18] + b"\x02\x02" + b"faces!faces!")
    assert stored(inspected(jpeg[:2] + thumbnail + jpeg[20:])) == jpeg


def test_further_pictures_of_a_phone_photo_are_dropped() -> None:
    data = images.frames("MPO")
    result = inspected(data, declared_type="image/jpeg")
    clean = stored(result)
    assert data.count(b"\xff\xd8\xff") == 3
    assert clean.count(b"\xff\xd8\xff") == 1
    assert b"MPF\0" not in clean
    assert stored(inspected(data + bytes(6))) == clean
    for tail in (images.HTML, images.zip_file()):
        assert refusal(data + tail) == "TRAILING_DATA"
    assert refusal(data[:-1]) == "IMAGE_CORRUPT"


def test_interlaced_png_of_every_small_size() -> None:
    for width in range(1, 10):
        for height in range(1, 10):
            raw = b"".join(
                b"\0" + bytes(-((c - width) // dc))
                for c, r, dc, dr in (
                    (0, 0, 8, 8),
                    (4, 0, 8, 8),
                    (0, 4, 4, 8),
                    (2, 0, 4, 4),
                    (0, 2, 2, 4),
                    (1, 0, 2, 2),
                    (0, 1, 1, 2),
                )
                for _ in range(-((r - height) // dr))
                if c < width
            )
            data = images.png_of(width, height, raw, colour=0, lace=1)
            images.decoded(data, "PNG")
            assert stored(inspected(data)) == data
            short = images.png_of(width, height, raw[:-1], colour=0, lace=1)
            assert refusal(short) == "IMAGE_CORRUPT"


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_disturb_each_other_nor_the_global_settings(kind: str) -> None:
    good, bad = images.DIRTY[kind](6), images.DIRTY[kind](1)[:-40]
    wanted = stored(inspected(good))
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    wrong: list[Any] = []

    def work() -> None:
        wrong.extend(
            kind
            for _ in range(10)
            if stored(inspected(good)) != wanted or refusal(bad) != "IMAGE_CORRUPT"
        )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert before == (Image.MAX_IMAGE_PIXELS, list(warnings.filters))


def test_many_small_chunks_become_few_parts() -> None:
    packed = zlib.compress(b"\0\1\2\3" * 2)
    chunks = [images.png_chunk(b"IDAT", packed[i : i + 1]) for i in range(len(packed))]
    empty: Sequence[bytes] = [images.png_chunk(b"IDAT")] * 20_000
    data = b"".join(
        (images.png_header(1, 2), *chunks[:3], *empty, *chunks[3:], images.png_chunk(b"IEND"))
    )
    result = inspected(data)
    assert len(result.parts) == 1
    assert stored(result) == data
