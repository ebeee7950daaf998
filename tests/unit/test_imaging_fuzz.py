"""The imaging room: any bytes are refused or come out clean."""

from __future__ import annotations

import io
import zipfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from tests.fixtures.mutants import mutants, outside_pixels


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
