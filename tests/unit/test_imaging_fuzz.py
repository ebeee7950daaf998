"""The imaging room: any bytes are refused or come out clean."""

from __future__ import annotations

import io
import zipfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from libs.common.errors import InvalidArgumentError
from services.assets.imaging import (
    with_xmp,
)
from tests.fixtures import images
from tests.fixtures.inspections import (
    HARMLESS_INFO,
    MARKS,
    TYPES,
    inspected,
    packet,
    same_pixels,
    stored,
)


def seeds() -> list[bytes]:
    small = images.picture(9, 7)
    clear = small.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(small.size))
    return [
        images.dirty_png(1, small),
        images.dirty_png(6, small.convert("P")),
        images.encoded("PNG", small.convert("1")),
        images.frames("PNG", 2),
        images.dirty_jpeg(1, small),
        images.dirty_jpeg(7, small, progressive=True),
        images.encoded("JPEG", small.convert("CMYK"), restart_marker_blocks=1),
        images.frames("MPO", 2),
        images.dirty_webp(1, small),
        images.dirty_webp(8, clear),
        images.encoded("WEBP", clear, lossless=True),
        images.frames("WEBP", 2),
    ]


SEEDS = seeds()
CUTS = (b"", b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xd9", b"\xff\xd8\xff")


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.sampled_from([0, 1, 1, 1, 2, 4, 30, 10_000]))
        new = draw(
            st.one_of(
                st.binary(min_size=1, max_size=4),
                st.sampled_from(CUTS),
                st.builds(lambda seed, a: seed[a : a + 60], st.sampled_from(SEEDS), st.just(at)),
            )
        )
        data[at : at + gone] = new
    is_png = data.startswith(images.PNG_SIGNATURE)
    return images.fix_png_checksums(bytes(data)) if is_png and draw(st.booleans()) else bytes(data)


def outside_pixels(kind: str, clean: bytes, profile: bytes) -> bytes:
    """The file without its profile and without coded pixels, in which decoders skip anything."""
    if kind == "JPEG":
        clean = clean[: clean.index(b"\xff\xda")]
    if kind == "WEBP":
        pixels = {b"VP8 ", b"VP8L", b"ALPH"}
        clean = b"".join(n + d for n, d in images.riff_chunks(clean) if n not in pixels)
    return clean.replace(profile, b"")


def accepted_is_clean(data: bytes) -> None:
    try:
        result = inspected(data)
    except InvalidArgumentError:
        return
    clean = stored(result)
    assert result.size == len(clean)
    assert stored(inspected(clean)) == clean
    kind = {content: name for name, content in TYPES.items()}[result.content_type]
    image = images.decoded(clean, kind)
    assert image.size == (result.width, result.height)
    assert set(image.info) <= HARMLESS_INFO
    outside = outside_pixels(kind, clean, image.info.get("icc_profile") or b"\0none")
    assert not [mark for mark in MARKS if mark in outside]
    assert not zipfile.is_zipfile(io.BytesIO(clean))
    marked = images.decoded(b"".join(with_xmp(result.parts, result.content_type, packet())), kind)
    assert same_pixels(marked, image)


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(mutants())
def test_any_mutant_is_refused_or_comes_out_clean(data: bytes) -> None:
    accepted_is_clean(data)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", images.PNG_SIGNATURE, b"RIFF\x20\0\0\0WEBP"]),
    st.binary(max_size=64),
)
def test_any_bytes_are_refused_or_come_out_clean(head: bytes, tail: bytes) -> None:
    accepted_is_clean(head + tail)
