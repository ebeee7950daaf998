from __future__ import annotations

import io

import pytest
from PIL import Image, ImageChops, ImageStat

from examples.make_photos import FOLDER, MAX_BYTES, PHOTOS, encoded


@pytest.mark.parametrize("name", ["mug.jpg", "background.jpg"])
def test_drawing_a_photo_again_gives_the_committed_pixels(name: str) -> None:
    again = io.BytesIO(encoded(name, PHOTOS[name]()))
    with Image.open(again) as drawn, Image.open(FOLDER / name) as committed:
        difference = ImageChops.difference(drawn.convert("RGB"), committed.convert("RGB"))
    # Not a byte comparison: another processor may round a blur by one level.
    assert max(ImageStat.Stat(difference).mean) < 0.2


@pytest.mark.parametrize("name", sorted(PHOTOS))
def test_every_photo_is_committed_and_small(name: str) -> None:
    assert (FOLDER / name).stat().st_size <= MAX_BYTES
    with Image.open(FOLDER / name) as photo:
        assert max(photo.size) == 1200
        photo.load()


def test_nothing_else_lies_in_the_folder() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PHOTOS)
