"""Placing a cut-out subject on the stage: fitted, lit like its surroundings, with its shadow."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from services.worker.generators.offline_cutout import Cutout, bounds_of
from services.worker.generators.offline_layout import Spot
from services.worker.generators.offline_palette import Palette
from services.worker.generators.offline_stage import Stage

_AMBIENT = 0.05  # how much of the wall's colour falls on a subject
_CAST_HEIGHT = 0.30  # length of the cast shadow, in subject heights


def place(stage: Stage, subject: Cutout, spot: Spot, palette: Palette) -> None:
    """Paint the subject at its spot, shadow first."""
    picture = _prepared(stage, subject, spot, palette)
    x = round(spot.x * stage.width - picture.width / 2)
    if spot.flat or not subject.is_cut:
        middle = spot.base if spot.flat else spot.base - spot.height / 2
        y = round(middle * stage.height - picture.height / 2)
        _drop_shadow(stage, picture, x, y, palette)
    else:
        y = round(spot.base * stage.height - picture.height)
        if subject.grounded and y + picture.height < stage.height:
            _ground_shadow(stage, picture, x, y, palette)
            if spot.cast:
                base = y + picture.height
                stage.lay(_cast(stage, picture, x, base), 0.018, palette.shadow, 0.20)
    stage.image.paste(picture, (x, y), picture)


def _prepared(stage: Stage, subject: Cutout, spot: Spot, palette: Palette) -> Image.Image:
    image = subject.image
    room = spot.width * stage.width, spot.height * stage.height
    factor = min(room[0] / image.width, room[1] / image.height)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    resample = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC
    image = image.resize(size, resample, reducing_gap=3.0)
    if not subject.is_cut:
        image = _as_print(image, stage.unit)
    if spot.flip:
        image = ImageOps.mirror(image)
    if spot.quarter and subject.is_cut:
        image = _quarter_view(image)
    if spot.turn:
        image = image.rotate(spot.turn, Image.Resampling.BICUBIC, expand=True)
    alpha = image.getchannel("A")
    if spot.distance:
        radius = spot.distance * stage.unit / 420
        image = image.convert("RGBa").filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        alpha = image.getchannel("A")
    tint = Image.new("RGB", image.size, palette.wall)
    lit = Image.blend(image.convert("RGB"), tint, _AMBIENT + spot.distance * 0.07)
    lit.putalpha(alpha)
    return lit


def _as_print(image: Image.Image, unit: int) -> Image.Image:
    """A whole photo as a print with a white margin and rounded corners."""
    margin = max(4, unit // 64)
    framed = ImageOps.expand(image.convert("RGB"), margin, (250, 249, 247))
    mask = Image.new("L", (framed.width * 2, framed.height * 2))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), margin, 255)
    framed.putalpha(mask.reduce(2))
    return framed


def _quarter_view(image: Image.Image) -> Image.Image:
    """As if turned a little: narrower, its right side further away."""
    width, height = image.size
    inset = height * 0.035
    quad = (0, 0, 0, height, width, height + inset, width, -inset)
    return image.transform(
        (round(width * 0.95), height), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC
    )


def _drop_shadow(stage: Stage, picture: Image.Image, x: int, y: int, palette: Palette) -> None:
    shift = round(stage.unit * 0.016)
    for reach, blur, strength in ((shift * 2, 0.035, 0.26), (shift // 2, 0.008, 0.30)):
        mask = _silhouette(stage, picture, (x + reach // 2, y + reach))
        stage.lay(mask, blur, palette.shadow, strength)


def _ground_shadow(stage: Stage, picture: Image.Image, x: int, y: int, palette: Palette) -> None:
    """Two shadows in one: a soft pool, and the dark line of contact."""
    base = y + picture.height
    left, right = _footprint(picture)
    middle = (x + (left + right) / 2) / stage.width
    half = (right - left) / 2 / stage.unit
    pool = max(half, picture.width / stage.unit * 0.36)
    line = base / stage.height
    stage.soft_ellipse((middle, line), (pool * 1.10, pool * 0.13), 0.028, palette.shadow, 0.34)
    depth = min(0.016, 0.006 + half * 0.03)
    stage.soft_ellipse(
        (middle, line - depth * 0.55), (half * 1.01, depth), 0.006, palette.shadow, 0.62
    )


def _footprint(picture: Image.Image) -> tuple[int, int]:
    """Where the subject touches the ground: its lowest part's left and right end."""
    height = max(2, picture.height // 22)
    foot = picture.getchannel("A").crop((0, picture.height - height, *picture.size))
    bounds = bounds_of(foot)
    return (bounds[0], bounds[2]) if bounds else (0, picture.width)


def _small(stage: Stage) -> Image.Image:
    return Image.new("L", (stage.width // 4, stage.height // 4))


def _silhouette(stage: Stage, picture: Image.Image, at: tuple[int, int]) -> Image.Image:
    mask = _small(stage)
    alpha = picture.getchannel("A").reduce(4)
    mask.paste(alpha, (at[0] // 4, at[1] // 4))
    return mask


def _cast(stage: Stage, picture: Image.Image, x: int, base: int) -> Image.Image:
    """The silhouette, laid on the ground behind the subject and to the right."""
    mask = _small(stage)
    alpha = picture.getchannel("A").reduce(4)
    width, height = alpha.size
    low = max(2, round(height * _CAST_HEIGHT))
    lean = round(low * 1.3)
    # Rows are squeezed by _CAST_HEIGHT, and pushed right the further they are from the base.
    laid = alpha.transform(
        (width + lean, low),
        Image.Transform.AFFINE,
        (1, lean / low, -lean, 0, height / low, 0),
        Image.Resampling.BILINEAR,
    )
    mask.paste(laid, (x // 4, base // 4 - low), laid)
    return mask
