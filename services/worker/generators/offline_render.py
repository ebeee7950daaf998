"""One offline picture from one request: pure and deterministic, no event loop, no clock.

The same inputs' bytes, prompt, index, count, aspect ratio, quality and format give the same
bytes, on every run and on every thread.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image, ImageOps

from services.worker.generation import ImageRequest, Reference
from services.worker.generators import offline_edit
from services.worker.generators.offline_cutout import Cutout, CutoutCache
from services.worker.generators.offline_layout import (
    Spot,
    beside_model,
    into_zone,
    layout_for,
    mirrored,
    product_spots,
)
from services.worker.generators.offline_palette import Palette, palette_for
from services.worker.generators.offline_scene import Setting, build
from services.worker.generators.offline_source import opened
from services.worker.generators.offline_stage import Stage
from services.worker.generators.offline_subject import place

LONG_SIDE = {"fast": 1024, "high": 1536}
"""Pixels of the longer side, by quality."""

_INPUT_SIDE = {"product": 900, "model": 1100, "background": 1100}
_COLOR_SOURCE_SIDE = 320
_SHADES_ON = 5  # with 8 or 6 layouts: 13 or 11 further, which no choice of colours comes round by

Checkpoint = Callable[[], None]
"""Called between the steps; raises where the picture is no longer wanted."""


def render(request: ImageRequest, inputs: CutoutCache, checkpoint: Checkpoint) -> tuple[bytes, str]:
    """The encoded picture and its content type; raises GenerationError(BAD_INPUT)."""
    if any(reference.role == "base" for reference in request.references):
        picture = offline_edit.edited(
            request, size_for(request), _rng(request, per_image=True), checkpoint
        )
    else:
        picture = _composed(request, inputs, checkpoint)
    checkpoint()
    return encoded(picture, request.format)


def size_for(request: ImageRequest) -> tuple[int, int]:
    """Width and height in pixels by aspect ratio and quality; 1:1 where the ratio is empty."""
    long_side = LONG_SIDE.get(request.quality, LONG_SIDE["fast"])
    found = re.fullmatch(r"([1-9]\d?):([1-9]\d?)", request.aspect_ratio)
    across, down = (int(found[1]), int(found[2])) if found else (1, 1)
    if across >= down:
        return long_side, max(64, round(long_side * down / across))
    return max(64, round(long_side * across / down)), long_side


def encoded(picture: Image.Image, wanted: str) -> tuple[bytes, str]:
    """The picture as png, jpeg or webp."""
    out = io.BytesIO()
    if wanted == "jpeg":
        picture.save(out, "JPEG", quality=90)
    elif wanted == "webp":
        picture.save(out, "WEBP", quality=90, method=2)
    else:
        wanted = "png"
        picture.save(out, "PNG", compress_level=1)
    return out.getvalue(), f"image/{wanted}"


def _rng(request: ImageRequest, *, per_image: bool) -> random.Random:
    """Randomness from the request: the image's own, or what all images of the job share."""
    digest = hashlib.sha256()
    for reference in request.references:
        digest.update(f"{reference.role}:".encode())
        digest.update(hashlib.sha256(reference.data).digest())
    parts = [request.aspect_ratio, request.quality, request.format, str(request.count)]
    if per_image:
        parts += [str(request.index), request.prompt]
    digest.update("\0".join(parts).encode())
    return random.Random(digest.digest())  # noqa: S311 - pictures, not secrets


def _composed(request: ImageRequest, inputs: CutoutCache, checkpoint: Checkpoint) -> Image.Image:
    """A picture of the products in a scene."""
    shared, own = _rng(request, per_image=False), _rng(request, per_image=True)
    variation = max(0, request.index - 1)
    products = _cutouts(request.references, "product", inputs, checkpoint)
    model = next(iter(_cutouts(request.references, "model", inputs, checkpoint)), None)
    photo = _first_photo(request.references)
    sources = _color_sources(request.references, photo)
    checkpoint()
    layout = layout_for(
        variation, shared, on_photo=photo is not None, open_floor=bool(model) or not products
    )
    if layout.single and products:
        products = [products[variation % len(products)]]
    lead = products[0].image if products else None
    shade = variation + (_SHADES_ON if layout.mirrored else 0)
    palette = palette_for(sources, request.prompt, shade, lead, shared)
    stage = Stage(*size_for(request))
    spots = product_spots(layout, len(products))
    is_wide = len(products) > 1
    middle = 0.5 if is_wide else layout.spot.x
    model_spot = None
    if model is not None:
        model_spot, middle, scale = beside_model(variation, stage.width / stage.height)
        spots = into_zone(spots, middle, scale)
    setting = Setting(palette, middle, is_wide, model is not None, photo, own)
    build(layout.scene, stage, setting)
    checkpoint()
    if layout.mirrored:
        stage.image = ImageOps.mirror(stage.image)
        spots = [mirrored(spot) for spot in spots]
        model_spot = mirrored(model_spot) if model_spot else None
    if model is not None and model_spot is not None:
        _place_model(stage, model, model_spot, palette)
    _place_products(stage, products, spots, palette)
    return stage.image


def _place_products(
    stage: Stage, products: Sequence[Cutout], spots: Sequence[Spot], palette: Palette
) -> None:
    if not products:  # a prompt alone: a still life stands for what cannot be known
        spot = spots[0]
        radius = min(spot.width * stage.width, spot.height * stage.height) / stage.unit * 0.36
        middle = spot.base - (0 if spot.flat else radius * stage.unit / stage.height)
        stage.sphere((spot.x, middle), radius, palette.accent)
        return
    shown = [(products[i % len(products)], spot) for i, spot in enumerate(spots)]
    for product, spot in sorted(shown, key=lambda pair: -pair[1].distance):
        place(stage, product, spot, palette)


def _place_model(stage: Stage, model: Cutout, spot: Spot, palette: Palette) -> None:
    if model.is_cut:
        place(stage, model, spot if model.grounded else replace(spot, base=1.0), palette)
        return
    # A model before a busy backdrop keeps it: her photo fills her side of the picture.
    width = round(stage.width * 0.46)
    photo = ImageOps.fit(model.image.convert("RGB"), (width, stage.height), centering=(0.5, 0.3))
    stage.image.paste(photo, (0 if spot.x * 2 < 1 else stage.width - width, 0))


def _cutouts(
    references: Sequence[Reference], role: str, inputs: CutoutCache, checkpoint: Checkpoint
) -> list[Cutout]:
    found = []
    for reference in references:
        if reference.role == role:
            checkpoint()
            found.append(inputs.cutout(reference, long_side=_INPUT_SIDE[role]))
    return found


def _first_photo(references: Sequence[Reference]) -> Image.Image | None:
    for reference in references:
        if reference.role == "background":
            return opened(reference, long_side=_INPUT_SIDE["background"]).convert("RGB")
    return None


def _color_sources(references: Sequence[Reference], photo: Image.Image | None) -> list[Image.Image]:
    """Moodboards first, then other references; the background's own colours if there are none."""
    found = [
        opened(reference, long_side=_COLOR_SOURCE_SIDE)
        for role in ("moodboard", "reference")
        for reference in references
        if reference.role == role
    ]
    return found or ([photo] if photo is not None else [])
