"""The imaging room: the note that a generated image carries."""

from __future__ import annotations

import xml.etree.ElementTree as ET
import zlib
from typing import Any

import pytest

from services.assets.imaging import (
    UPLOAD_LIMITS,
    digest_of,
    inspect_image,
    provenance_xmp,
    with_xmp,
)
from tests.fixtures import images
from tests.fixtures.inspections import VARIANTS, inspected, packet, same_pixels, stored


def test_the_packet_says_what_it_must() -> None:
    root = ET.fromstring(packet())  # noqa: S314 - our own XML
    (node,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    source = node.attrib["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]
    assert source == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert node.attrib["{http://ns.adobe.com/xap/1.0/}CreatorTool"] == "contentshop <&> \"x\" 'y'"
    assert "".join(node.itertext()).split() == (
        ["job-41/image-2", "Generated", "image:", "image", "2", "of", "job", "41."]
    )
    assert b"review" not in packet()
    assert b"Preview, not a final image" in packet(preview=True)
    with pytest.raises(ValueError, match="letters"):
        provenance_xmp(
            digital_source_type='"><x', creator_tool="", preview=False, job_id=1, image_index=1
        )


@pytest.mark.parametrize(("kind", "mode", "options"), VARIANTS)
def test_a_packet_goes_in_without_touching_the_image(
    kind: str, mode: str, options: dict[str, Any]
) -> None:
    source = images.picture(mode="L" if mode == "I;16" else mode).convert(mode)
    for data in (images.encoded(kind, source, **options), images.DIRTY[kind](1, source)):
        clean = inspected(data)
        parts = with_xmp(clean.parts, clean.content_type, packet())
        marked = b"".join(parts)
        image = images.decoded(marked, kind)
        xmp = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
        assert xmp == packet()
        assert same_pixels(image, images.decoded(stored(clean), kind))
        at_once = inspect_image(data, declared_type=None, limits=UPLOAD_LIMITS, xmp=packet())
        assert stored(at_once) == marked
        assert (at_once.sha256, at_once.crc32) == (digest_of([marked]).sha256, zlib.crc32(marked))
        again = images.decoded(stored(inspected(marked)), kind)
        assert "xmp" not in again.info
        assert "XML:com.adobe.xmp" not in again.info
        assert same_pixels(again, image)


def test_a_packet_too_long_for_a_jpeg_is_our_mistake() -> None:
    clean = inspected(images.encoded("JPEG"))
    assert len(b"".join(with_xmp(clean.parts, "image/jpeg", b"x" * 65_504))) > 65_504
    with pytest.raises(ValueError, match="too long"):
        with_xmp(clean.parts, "image/jpeg", b"x" * 65_505)
