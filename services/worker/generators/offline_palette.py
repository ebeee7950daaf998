"""The colours of an offline picture: from a moodboard, the prompt's own words, or a house set."""

from __future__ import annotations

import colorsys
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageStat

Color = tuple[int, int, int]

_SWATCHES = 8
_SAMPLE = 72  # pixels: enough for eight colours
_LIGHT = 0.66  # mean brightness of a light subject, 0..1
_GREY = 0.08  # saturation below which a colour has no hue to speak of
_NEAR_HUE = 0.09  # of the circle: two colours closer than this look like one


@dataclass(frozen=True, slots=True)
class Palette:
    """What a scene is painted with."""

    wall: Color
    floor: Color
    accent: Color
    light: Color
    shadow: Color


_HOUSE: tuple[tuple[Color, Color], ...] = (
    ((214, 168, 134), (178, 92, 66)),  # sand, terracotta
    ((158, 176, 146), (236, 220, 190)),  # sage, cream
    ((142, 168, 196), (236, 184, 152)),  # dusty blue, peach
    ((226, 176, 172), (134, 58, 72)),  # blush, burgundy
    ((180, 168, 208), (222, 178, 92)),  # lavender, mustard
    ((232, 206, 138), (112, 158, 176)),  # butter, teal
    ((146, 196, 182), (232, 132, 108)),  # mint, coral
    ((196, 186, 176), (96, 110, 104)),  # stone, moss
)

_WORDS: dict[str, Color] = {
    "red": (196, 58, 52), "crimson": (170, 38, 56), "burgundy": (134, 46, 62),
    "pink": (234, 160, 178), "blush": (232, 184, 176), "rose": (220, 140, 150),
    "orange": (230, 138, 66), "coral": (236, 128, 106), "terracotta": (194, 100, 70),
    "sunset": (236, 142, 98), "autumn": (190, 112, 58), "peach": (242, 184, 148),
    "yellow": (240, 206, 92), "mustard": (212, 164, 66), "gold": (206, 168, 92),
    "golden": (222, 176, 98), "sand": (220, 196, 162), "desert": (216, 170, 124),
    "beige": (222, 204, 180), "cream": (238, 226, 204), "brown": (140, 98, 70),
    "wood": (176, 128, 86), "wooden": (176, 128, 86), "green": (104, 150, 100),
    "forest": (70, 106, 82), "sage": (158, 176, 146), "olive": (134, 136, 84),
    "mint": (160, 210, 190), "jungle": (64, 116, 82), "teal": (64, 138, 138),
    "turquoise": (84, 182, 180), "ocean": (70, 134, 166), "sea": (104, 164, 182),
    "beach": (226, 202, 160), "blue": (82, 126, 186), "navy": (50, 70, 112),
    "sky": (150, 192, 222), "purple": (130, 96, 160), "lavender": (184, 170, 214),
    "violet": (140, 104, 176), "grey": (160, 162, 166), "gray": (160, 162, 166),
    "concrete": (168, 168, 164), "marble": (226, 224, 222), "black": (48, 48, 52),
    "white": (240, 240, 240),
}  # fmt: skip

_DARK = frozenset(("dark", "night", "moody", "black", "midnight", "dramatic"))


def words(prompt: str) -> list[str]:
    """The prompt's words, in lower case, in order."""
    return re.findall(r"[a-z]+", prompt.lower())


def named_colors(prompt: str) -> list[Color]:
    """The colours the prompt names, first mention first."""
    return [_WORDS[word] for word in dict.fromkeys(words(prompt)) if word in _WORDS]


def swatches(image: Image.Image) -> list[Color]:
    """Up to eight colours of the picture, the most telling first: large or saturated."""
    sample = image.convert("RGB").resize((_SAMPLE, _SAMPLE), Image.Resampling.BOX)
    quantized = sample.quantize(_SWATCHES, Image.Quantize.MEDIANCUT)
    flat = quantized.getpalette() or []
    counted = quantized.getcolors() or []
    scored = []
    for count, slot in counted:
        assert isinstance(slot, int)
        color = (flat[slot * 3], flat[slot * 3 + 1], flat[slot * 3 + 2])
        _, lightness, saturation = hls(color)
        colorful = saturation * (1 - abs(2 * lightness - 1))  # chroma: paper and ink have none
        scored.append(((count / _SAMPLE**2) ** 0.5 * (0.06 + colorful), color))
    return [color for _, color in sorted(scored, reverse=True)]


def palette_for(
    sources: Sequence[Image.Image],
    prompt: str,
    variation: int,
    subject: Image.Image | None,
    rng: random.Random,
) -> Palette:
    """The palette of variation `variation` (0-based): related to its siblings, not the same.

    `sources` are moodboards and other pictures to take colours from. The wall is set apart
    from the subject in lightness, so that a white shirt is not lost on a white wall.
    """
    found = [color for image in sources for color in swatches(image)[:4]]
    found = found or named_colors(prompt)
    if found:
        main = found[variation % min(len(found), 3)]
        accent = max(found, key=lambda color: _hue_distance(color, main))
        if _hue_distance(accent, main) < _NEAR_HUE / 2:
            accent = turned(main, 0.06 if variation % 2 else -0.06)
    else:
        main, accent = _house(variation, subject, rng)
    is_dark = not _DARK.isdisjoint(words(prompt))
    return _built(main, accent, _wall_lightness(subject, variation, is_dark=is_dark))


def _house(variation: int, subject: Image.Image | None, rng: random.Random) -> tuple[Color, Color]:
    pairs = list(_HOUSE)
    if subject is not None:
        own = swatches(subject.convert("RGB"))[0]
        pairs = [pair for pair in pairs if _hue_distance(pair[0], own) > _NEAR_HUE] or pairs
    first = rng.randrange(len(pairs))
    return pairs[(first + variation) % len(pairs)]


def _wall_lightness(subject: Image.Image | None, variation: int, *, is_dark: bool) -> float:
    if is_dark:
        return 0.24
    shade = (0.80, 0.72, 0.84, 0.64)[variation % 4]
    if subject is None:
        return shade
    alpha = subject.getchannel("A") if subject.mode == "RGBA" else None
    brightness = ImageStat.Stat(subject.convert("L"), alpha).mean[0] / 255
    if brightness > _LIGHT:  # a light subject wants a deeper wall
        return shade - 0.14
    return shade + 0.03


def _built(main: Color, accent: Color, lightness: float) -> Palette:
    wall = toned(main, lightness, least=0.0, most=0.56)
    return Palette(
        wall=wall,
        floor=toned(main, lightness * 0.90, least=0.0, most=0.50),
        accent=toned(accent, min(0.66, max(0.34, hls(accent)[1])), least=0.0, most=0.62),
        light=toned(main, 0.96, least=0.0, most=0.7),
        shadow=toned(main, 0.10, least=0.0, most=0.35),
    )


def hls(color: Color) -> tuple[float, float, float]:
    """Hue, lightness and saturation, each 0..1."""
    return colorsys.rgb_to_hls(color[0] / 255, color[1] / 255, color[2] / 255)


def toned(color: Color, lightness: float, *, least: float, most: float) -> Color:
    """The same hue at another lightness, its saturation kept within [least, most]."""
    hue, old_lightness, saturation = hls(color)
    chroma = saturation * (1 - abs(2 * old_lightness - 1))
    # The same chroma at a lighter tone would need more saturation; pale near-greys stay pale.
    saturation = min(saturation, 0.25 + chroma * 1.4)
    return _rgb(hue, lightness, min(most, max(least, saturation)))


def turned(color: Color, by: float) -> Color:
    """The colour with its hue turned by a part of the circle."""
    hue, lightness, saturation = hls(color)
    return _rgb((hue + by) % 1, lightness, saturation)


def mixed(a: Color, b: Color, part: float) -> Color:
    """`a`, with `part` (0..1) of `b` in it."""
    return (
        round(a[0] + (b[0] - a[0]) * part),
        round(a[1] + (b[1] - a[1]) * part),
        round(a[2] + (b[2] - a[2]) * part),
    )


def _rgb(hue: float, lightness: float, saturation: float) -> Color:
    r, g, b = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(r * 255), round(g * 255), round(b * 255)


def _hue_distance(a: Color, b: Color) -> float:
    """0..0.5 of the circle; greys have no hue and count as far as their lightness differs."""
    (hue_a, light_a, sat_a), (hue_b, light_b, sat_b) = hls(a), hls(b)
    if min(sat_a, sat_b) < _GREY:
        return abs(light_a - light_b) / 2
    gap = abs(hue_a - hue_b)
    return min(gap, 1 - gap)
