"""Edits by the offline generator: a visible change that follows the instruction's words.

The subject stays where and what it is; its backdrop is replaced, or the whole is regraded. Where
the subject cannot be told from a scene around it, the whole takes on the colour asked for.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from services.worker.generation import ImageRequest, Reference
from services.worker.generators.offline_cutout import bounds_of, subject_mask
from services.worker.generators.offline_palette import (
    named_colors,
    palette_for,
    words,
)
from services.worker.generators.offline_scene import Setting, build
from services.worker.generators.offline_source import full_size, opened
from services.worker.generators.offline_stage import Stage

MAX_SIDE = 2048
"""Pixels; a larger base is edited at this size, its ratio kept."""

_EXPOSURES = (1.0, 1.12, 0.86)  # each four variations another, so that ten are ten pictures

_TINTS = (0.75, 0.5, 1.0, 0.25)

_EXTEND = 0.12  # a ratio further off than this is reached by extending, not by cropping

_BACKDROP_WORDS = frozenset(
    ("background", "backdrop", "scene", "setting", "wall", "place", "replace", "behind")
)


@dataclass(frozen=True, slots=True)
class _Grade:
    """A regrade: channel gains, then saturation, contrast and brightness (1 = unchanged)."""

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    color: float = 1.0
    contrast: float = 1.0
    brightness: float = 1.0
    soften: bool = False


_GRADES: tuple[tuple[frozenset[str], _Grade], ...] = (
    (
        frozenset(("monochrome", "greyscale", "grayscale", "desaturate", "desaturated")),
        _Grade(color=0.0, contrast=1.12),
    ),
    (
        frozenset(("warm", "warmer", "sunset", "golden", "sunny", "cosy", "cozy", "autumn")),
        _Grade((1.12, 1.01, 0.82), 1.12, 1.04, 1.02),
    ),
    (
        frozenset(("cool", "cooler", "cold", "winter", "icy", "fresh")),
        _Grade((0.86, 1.0, 1.14), 1.02, 1.05),
    ),
    (frozenset(("bright", "brighter", "lighter", "airy", "sunlit")), _Grade(brightness=1.20)),
    (
        frozenset(("dark", "darker", "moody", "night", "dramatic", "evening")),
        _Grade((0.94, 0.96, 1.06), 0.92, 1.18, 0.66),
    ),
    (
        frozenset(("vivid", "vibrant", "colorful", "colourful", "saturated", "pop")),
        _Grade(color=1.55, contrast=1.10),
    ),
    (
        frozenset(("vintage", "retro", "film", "faded", "nostalgic")),
        _Grade((1.06, 0.99, 0.86), 0.70, 0.88, 1.04),
    ),
    (
        frozenset(("soft", "softer", "dreamy", "blur", "blurred", "bokeh")),
        _Grade((1.03, 1.0, 0.99), 0.94, 0.94, 1.05, soften=True),
    ),
    (frozenset(("contrast", "sharper", "crisp", "punchy")), _Grade(contrast=1.34, color=1.08)),
)


def edited(
    request: ImageRequest,
    size: tuple[int, int],
    rng: random.Random,
    checkpoint: Callable[[], None],
) -> Image.Image:
    """The base, changed as the prompt asks.

    It keeps the base's size (up to MAX_SIDE) and ratio; with an aspect ratio in the request it
    is fitted into `size` instead.
    """
    base_reference = _with_role(request, "base")
    assert base_reference is not None, "render() sends only edits here"
    base = opened(base_reference, long_side=MAX_SIDE).convert("RGB")
    base = _kept_size(base, full_size(base_reference))
    if request.aspect_ratio:
        base = _into(base, size)
    checkpoint()
    mask = subject_mask(base)
    inspiration = _with_role(request, "reference")
    look = opened(inspiration, long_side=640).convert("RGB") if inspiration else None
    checkpoint()
    said = set(words(request.prompt))
    is_backdrop = bool(said & _BACKDROP_WORDS or named_colors(request.prompt) or look)
    grades = [grade for keys, grade in _GRADES if said & keys]
    if "black and white" in request.prompt.lower():
        grades, is_backdrop = [_GRADES[0][1]], bool(said & _BACKDROP_WORDS)
    picture = base
    rounds, step = divmod(request.index - 1, 4)
    if mask is not None and (is_backdrop or not grades):
        picture = _new_backdrop(request, base, mask, look, rng)
    elif look is not None:
        picture = _tinted(base, look, _TINTS[step])
    elif is_backdrop and (colors := named_colors(request.prompt)):
        picture = _tinted(base, Image.new("RGB", (1, 1), colors[0]), _TINTS[step])
    elif not grades:
        first = zlib.crc32(request.prompt.encode())  # siblings share it, and take turns from there
        grades = [_GRADES[1 + (first + request.index) % (len(_GRADES) - 1)][1]]
    for grade in grades:
        picture = _graded(picture, grade, mask, 1.0 - 0.10 * step)
    return ImageEnhance.Brightness(picture).enhance(_EXPOSURES[rounds % 3]) if rounds else picture


def _with_role(request: ImageRequest, role: str) -> Reference | None:
    return next((each for each in request.references if each.role == role), None)


def _kept_size(base: Image.Image, real: tuple[int, int]) -> Image.Image:
    """JPEG's fast decoding may have come out smaller than the base is; give its size back."""
    factor = min(1.0, MAX_SIDE / max(real))
    wanted = max(1, round(real[0] * factor)), max(1, round(real[1] * factor))
    return base if base.size == wanted else base.resize(wanted, Image.Resampling.BICUBIC)


def _into(base: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The base at another ratio: cropped where that is close, else extended with soft sides."""
    if abs(base.width / base.height / (size[0] / size[1]) - 1) <= _EXTEND:
        return ImageOps.fit(base, size, Image.Resampling.BICUBIC)
    inner = ImageOps.contain(base, size, Image.Resampling.BICUBIC)
    x, y = (size[0] - inner.width) // 2, (size[1] - inner.height) // 2
    # The edge rows or columns, stretched outwards: a studio backdrop goes on without a seam.
    canvas = Image.new("RGB", size)
    if x:
        for edge, box in ((0, (0, 0, x, size[1])), (inner.width - 2, (x, 0, size[0], size[1]))):
            column = inner.crop((edge, 0, edge + 2, inner.height)).resize((1, size[1]))
            canvas.paste(column.resize((box[2] - box[0], size[1])), box[:2])
    else:
        for edge, box in ((0, (0, 0, size[0], y)), (inner.height - 2, (0, y, size[0], size[1]))):
            row = inner.crop((0, edge, inner.width, edge + 2)).resize((size[0], 1))
            canvas.paste(row.resize((size[0], box[3] - box[1])), box[:2])
    canvas = canvas.filter(ImageFilter.GaussianBlur(6))
    border = max(2, min(inner.size) // 40)
    side, cap = (border, 0) if x else (0, border)
    feather = Image.new("L", inner.size)
    feather.paste(255, (side, cap, inner.width - side, inner.height - cap))
    canvas.paste(inner, (x, y), feather.filter(ImageFilter.BoxBlur(border - 1)))
    return canvas


def _new_backdrop(
    request: ImageRequest,
    base: Image.Image,
    mask: Image.Image,
    look: Image.Image | None,
    rng: random.Random,
) -> Image.Image:
    """The same subject in the same place, before another backdrop."""
    variation = max(0, request.index - 1)
    cut = base.convert("RGBA")
    cut.putalpha(mask)
    sources = [look] if look is not None else []
    rounds, place = divmod(variation, 4)
    palette = palette_for(sources, request.prompt, variation + rounds, cut, rng)
    bounds = bounds_of(mask) or (0, 0, *base.size)
    middle = (bounds[0] + bounds[2]) / 2 / base.width
    stage = Stage(*base.size)
    scene = ("sweep", "window", "halo", "flatlay")[place]
    if look is not None and "background" in words(request.prompt):
        scene = "photo"
    setting = Setting(palette, middle, is_wide=False, is_sparse=True, photo=look, rng=rng)
    build(scene, stage, setting)
    foot = bounds[3] / base.height
    half = (bounds[2] - bounds[0]) / 2 / stage.unit
    if scene != "flatlay":
        stage.soft_ellipse((middle, foot), (half * 1.05, half * 0.12), 0.026, palette.shadow, 0.36)
        stage.soft_ellipse((middle, foot - 0.004), (half * 0.82, 0.010), 0.007, palette.shadow, 0.5)
    else:
        stage.lay(mask.reduce(4), 0.03, palette.shadow, 0.34)
    stage.image.paste(base, (0, 0), mask)
    return stage.image


def _tinted(base: Image.Image, look: Image.Image, strength: float) -> Image.Image:
    """The base in the look's mood: its average colour, laid over softly."""
    average = look.resize((1, 1), Image.Resampling.BOX).resize(base.size)
    return Image.blend(base, ImageChops.soft_light(base, average), strength)


def _graded(
    image: Image.Image, grade: _Grade, mask: Image.Image | None, strength: float
) -> Image.Image:
    """The image regraded; the subject, where it is known, by a little over half."""
    table = [min(255, round(v * gain)) for gain in grade.gains for v in range(256)]
    out = image.point(table)
    for enhancer, factor in (
        (ImageEnhance.Color, grade.color),
        (ImageEnhance.Contrast, grade.contrast),
        (ImageEnhance.Brightness, grade.brightness),
    ):
        if factor != 1.0:
            out = enhancer(out).enhance(factor)
    if grade.soften:
        small = out.reduce(4).filter(ImageFilter.GaussianBlur(max(image.size) / 400))
        out = small.resize(image.size, Image.Resampling.BICUBIC)
    out = Image.blend(image, out, strength)
    if mask is None or grade.color == 0.0:
        return out
    keep = 0.8 if grade.soften else 0.4
    kept = mask.point([round(v * keep) for v in range(256)])
    return Image.composite(image, out, kept)
