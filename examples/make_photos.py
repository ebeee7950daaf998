"""Draw the example photos of this repository into examples/photos.

    python -m examples.make_photos [folder]

Nothing in them is random and nothing comes from elsewhere, so they may be used freely, and
drawing them again gives the same pixels.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from examples import products, scenes

FOLDER = Path(__file__).parent / "photos"
MAX_BYTES = 300 * 1024

PHOTOS: dict[str, Callable[[], Image.Image]] = {
    "shirt.jpg": products.shirt,
    "mug.jpg": products.mug,
    "sneaker.jpg": products.sneaker,
    "handbag.jpg": products.handbag,
    "model.jpg": scenes.model,
    "background.jpg": scenes.background,
    "moodboard.png": scenes.moodboard,
}


def encoded(name: str, picture: Image.Image) -> bytes:
    """The bytes of the file `name`: PNG or JPEG by its ending."""
    out = io.BytesIO()
    if name.endswith(".png"):
        picture.save(out, "PNG", optimize=True)
    else:
        picture.save(out, "JPEG", quality=90, optimize=True, progressive=True)
    return out.getvalue()


def main(folder: Path = FOLDER) -> None:
    """Write every photo into `folder`, replacing what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PHOTOS.items():
        picture = draw()
        data = encoded(name, picture)
        if len(data) > MAX_BYTES:
            raise SystemExit(f"{name} is {len(data)} bytes; at most {MAX_BYTES} are wanted")
        (folder / name).write_bytes(data)
        print(f"{name}: {picture.width} x {picture.height}, {len(data) // 1024} KiB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
