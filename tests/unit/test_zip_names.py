from __future__ import annotations

import pytest

from services.packager.domain import ArchiveImage, Section
from services.packager.ziplayout import ZipEntry, plan
from services.packager.zipnames import MAX_FOLDER_CHARS, folder_names, safe_name


def _sections(*variants: str) -> list[Section]:
    images = (ArchiveImage(1, 1),)
    return [Section(images, number, variant) for number, variant in enumerate(variants, start=1)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SKU-1_b.2", "SKU-1_b.2"),
        ("Crème brûlée", "Creme-brulee"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\Windows\\x", "C-Windows-x"),
        ("a..b...c", "a.b.c"),
        (".hidden.", "hidden"),
        ("CON", "CON_"),
        ("com1.png", "com1.png_"),
        ("console", "console"),
        ("日本", ""),
        ("--", ""),
        ("___", ""),
        ("", ""),
        ("a\nb\x00c", "a-b-c"),
        ("x" * 300, "x" * MAX_FOLDER_CHARS),
    ],
)
def test_a_shops_word_becomes_a_safe_name(text: str, name: str) -> None:
    assert safe_name(text) == name


@pytest.mark.parametrize(
    ("variants", "names"),
    [
        (("red", "blue"), ["red", "blue"]),
        (("", "日本"), ["variant-1", "variant-2"]),
        (("Red", "red", "RED"), ["Red", "red-2", "RED-3"]),
        (("variant-2", ""), ["variant-2", "variant-2-2"]),
        (("a-3", "a", "a"), ["a-3", "a", "variant-3"]),
        (("manifest.json",), ["manifest.json-1"]),
    ],
)
def test_folders_of_a_zip_differ_on_every_disk(variants: tuple[str, ...], names: list[str]) -> None:
    sections = _sections(*variants)
    assert folder_names(sections, taken=["manifest.json"]) == names
    plan([ZipEntry(f"{name}/image-1.png", 1, 0) for name in names])  # it would refuse them
