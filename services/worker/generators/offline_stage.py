"""The stage of an offline picture: a canvas with light, shadow and a few solid props.

All places and sizes are parts of the picture (0..1), so that every aspect ratio works; lengths
that must look alike in both directions are parts of the shorter side (`unit`). Soft things are
drawn small and enlarged: a blur nobody can tell from the real one, at a sixteenth of its price.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFilter

from services.worker.generators.offline_palette import Color, mixed

_SOFT = 4  # soft masks are drawn at a quarter of the size
_CRISP = 2  # crisp masks at twice the size, then averaged: anti-aliased edges

_WHITE: Color = (255, 255, 255)
_BLACK: Color = (0, 0, 0)

Spot = tuple[float, float]


class Stage:
    """A picture in the making, `width` by `height` pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.unit = min(width, height)
        self.image = Image.new("RGB", (width, height))

    # --- light and air -----------------------------------------------------------------

    def rows(
        self, stops: Sequence[tuple[float, Color]], box: Sequence[float] | None = None
    ) -> None:
        """Fill all, or `box` (x0, y0, x1, y1), with a gradient from top to bottom."""
        x0, y0, x1, y1 = self._pixels(box or (0, 0, 1, 1))
        strip = _strip(stops, max(2, (y1 - y0) // 2), upright=True)
        self.image.paste(strip.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC), (x0, y0))

    def glow(self, center: Spot, radius: float, color: Color, strength: float) -> None:
        """A pool of light: `radius` in units, fading to nothing at its rim."""
        reach = round(radius * self.unit)
        dot = Image.radial_gradient("L").point(_falloff(strength))
        dot = dot.resize((reach * 2, reach * 2), Image.Resampling.BICUBIC)
        at = round(center[0] * self.width) - reach, round(center[1] * self.height) - reach
        self.image.paste(color, (*at, at[0] + reach * 2, at[1] + reach * 2), dot)

    def vignette(self, color: Color, strength: float) -> None:
        """Darken the corners a little."""
        curve = [round(max(0.0, (v - 150) / 105) ** 1.6 * 255 * strength) for v in range(256)]
        ring = Image.radial_gradient("L").point(curve)
        self.image.paste(color, (0, 0), ring.resize(self.image.size, Image.Resampling.BICUBIC))

    def soft(
        self, outlines: Sequence[Sequence[Spot]], blur: float, color: Color, strength: float
    ) -> None:
        """Polygons without hard edges: light through a window, the shadow of leaves."""
        mask = Image.new("L", (self.width // _SOFT, self.height // _SOFT))
        draw = ImageDraw.Draw(mask)
        for outline in outlines:
            draw.polygon([(x * mask.width, y * mask.height) for x, y in outline], fill=255)
        self.lay(mask, blur, color, strength)

    def soft_ellipse(
        self, center: Spot, radii: Spot, blur: float, color: Color, strength: float
    ) -> None:
        """A soft ellipse; radii and blur in units."""
        mask = Image.new("L", (self.width // _SOFT, self.height // _SOFT))
        x, y = center[0] * mask.width, center[1] * mask.height
        rx, ry = (radius * self.unit / _SOFT for radius in radii)
        ImageDraw.Draw(mask).ellipse((x - rx, y - ry, x + rx, y + ry), fill=255)
        self.lay(mask, blur, color, strength)

    def lay(self, mask: Image.Image, blur: float, color: Color, strength: float) -> None:
        """Lay `color` where a small mask shows, blurred by `blur` units."""
        radius = blur * self.unit * mask.width / self.width
        faded = mask.filter(ImageFilter.GaussianBlur(radius)).point(_scaled(strength))
        bounds = faded.getbbox()
        if bounds is None:
            return
        # Only the part that is not empty is enlarged.
        x_scale, y_scale = self.width / mask.width, self.height / mask.height
        x0, y0 = round(bounds[0] * x_scale), round(bounds[1] * y_scale)
        x1, y1 = round(bounds[2] * x_scale), round(bounds[3] * y_scale)
        if x1 <= x0 or y1 <= y0:
            return
        part = faded.crop(bounds).resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC)
        self.image.paste(color, (x0, y0, x1, y1), part)

    def panel(self, outline: Sequence[Spot], color: Color) -> None:
        """A flat polygon with clean edges."""
        points = [(x * self.width * _CRISP, y * self.height * _CRISP) for x, y in outline]
        mask = _crisp(self.width, self.height, lambda draw, _: draw.polygon(points, fill=255))
        self.image.paste(color, (0, 0), mask)

    # --- solid props -------------------------------------------------------------------

    def disc(self, center: Spot, radius: float, color: Color) -> None:
        """A flat round panel on the wall, lit from the upper left."""
        reach = round(radius * self.unit)
        mask = _crisp(reach * 2, reach * 2, lambda draw, box: draw.ellipse(box, fill=255))
        face = _strip(_tones(color, 0.12, -0.10), reach, upright=True)
        at = round(center[0] * self.width) - reach, round(center[1] * self.height) - reach
        self.image.paste(face.resize(mask.size, Image.Resampling.BICUBIC), at, mask)

    def arch(
        self, x: float, width: float, top: float, base: float, stops: Sequence[tuple[float, Color]]
    ) -> None:
        """An opening with a round head, `width` in units, between two heights."""
        w = round(width * self.unit)
        y0, y1 = round(top * self.height), round(base * self.height)
        height = max(y1 - y0, w // 2 + 2)

        def outline(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
            draw.pieslice((box[0], box[1], box[2], box[1] + box[2]), 180, 360, fill=255)
            draw.rectangle((box[0], box[1] + box[2] // 2, box[2], box[3]), fill=255)

        mask = _crisp(w, height, outline)
        fill = _strip(stops, height // 2, upright=True).resize(
            (w, height), Image.Resampling.BICUBIC
        )
        self.image.paste(fill, (round(x * self.width) - w // 2, y1 - height), mask)

    def drum(self, x: float, top: float, radius: float, height: float, color: Color) -> None:
        """A round plinth; `top` is its upper face's middle; radius and height in units."""
        r, h = round(radius * self.unit), round(height * self.unit)
        tilt = max(2, round(r * 0.17))
        left, y = round(x * self.width) - r, round(top * self.height)
        base = (y + h) / self.height
        self.soft_ellipse(
            (x + radius * 0.2, base), (radius * 1.15, radius * 0.24), 0.03, _BLACK, 0.30
        )
        self.soft_ellipse((x, base), (radius * 1.02, radius * 0.19), 0.008, _BLACK, 0.35)

        def side(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
            ry = tilt * _CRISP
            draw.rectangle((box[0], box[1], box[2], box[3] - ry), fill=255)
            draw.ellipse((box[0], box[3] - 2 * ry, box[2], box[3]), fill=255)

        body = _strip(_round_light(color), 128, upright=False)
        mask = _crisp(2 * r, h + tilt, side)
        self.image.paste(body.resize(mask.size, Image.Resampling.BICUBIC), (left, y), mask)
        lid = _crisp(2 * r, 2 * tilt, lambda draw, box: draw.ellipse(box, fill=255))
        face = _strip(_tones(color, 0.20, 0.42), 32, upright=False)
        self.image.paste(face.resize(lid.size, Image.Resampling.BICUBIC), (left, y - tilt), lid)

    def block(self, x: float, top: float, width: float, height: float, color: Color) -> None:
        """A box seen from the front and slightly above; width and height in units."""
        w, h = round(width * self.unit), round(height * self.unit)
        depth = max(3, round(min(w, self.unit * 0.5) * 0.10))
        left, y = round(x * self.width) - w // 2, round(top * self.height)
        base = (y + h) / self.height
        half = width / 2 * self.unit / self.width
        foot = [
            (x - half, base - 0.02),
            (x + half * 1.2, base - 0.02),
            (x + half * 1.25, base + 0.015),
            (x - half * 0.9, base + 0.015),
        ]
        self.soft([foot], 0.018, _BLACK, 0.42)
        front = _strip(_tones(color, 0.04, -0.16), 32, upright=True)
        self.image.paste(front.resize((w, h), Image.Resampling.BICUBIC), (left, y))

        def outline(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
            inset = box[2] * 0.035
            corners = [(inset, 0), (box[2] - inset, 0), (box[2], box[3]), (0, box[3])]
            draw.polygon(corners, fill=255)

        lid = _crisp(w, depth, outline)
        self.image.paste(mixed(color, _WHITE, 0.32), (left, y - depth), lid)

    def sphere(self, center: Spot, radius: float, color: Color) -> None:
        """A matt ball, lit from the upper left, with its shadow; `center` is its middle."""
        r = round(radius * self.unit)
        foot = center[1] + radius * self.unit / self.height
        self.soft_ellipse(
            (center[0] + radius * 0.15, foot), (radius * 0.95, radius * 0.20), 0.02, _BLACK, 0.34
        )
        mask = _crisp(2 * r, 2 * r, lambda draw, box: draw.ellipse(box, fill=255))
        light = Image.radial_gradient("L").transform(
            (128, 128),
            Image.Transform.AFFINE,
            (1.4, 0, 70, 0, 1.4, 74),
            Image.Resampling.BILINEAR,
        )
        ball = Image.composite(
            Image.new("RGB", light.size, mixed(color, _BLACK, 0.42)),
            Image.new("RGB", light.size, mixed(color, _WHITE, 0.42)),
            light,
        )
        at = round(center[0] * self.width) - r, round(center[1] * self.height) - r
        self.image.paste(ball.resize(mask.size, Image.Resampling.BICUBIC), at, mask)

    def _pixels(self, box: Sequence[float]) -> tuple[int, int, int, int]:
        return (
            round(box[0] * self.width),
            round(box[1] * self.height),
            round(box[2] * self.width),
            round(box[3] * self.height),
        )


def _crisp(
    width: int, height: int, draw: Callable[[ImageDraw.ImageDraw, tuple[int, int, int, int]], None]
) -> Image.Image:
    """A mask of `width` by `height` with smooth edges; `draw` gets the enlarged box."""
    mask = Image.new("L", (width * _CRISP, height * _CRISP))
    draw(ImageDraw.Draw(mask), (0, 0, mask.width - 1, mask.height - 1))
    return mask.reduce(_CRISP)


def _strip(stops: Sequence[tuple[float, Color]], length: int, *, upright: bool) -> Image.Image:
    """A gradient one pixel wide."""
    strip = Image.new("RGB", (1, length) if upright else (length, 1))
    strip.putdata([_at(stops, i / (length - 1)) for i in range(length)])
    return strip


def _at(stops: Sequence[tuple[float, Color]], where: float) -> Color:
    for (start, first), (end, second) in itertools.pairwise(stops):
        if where <= end:
            part = max(0.0, (where - start) / (end - start))
            return mixed(first, second, part * part * (3 - 2 * part))
    return stops[-1][1]


def _tones(color: Color, first: float, last: float) -> list[tuple[float, Color]]:
    """From one tone of a colour to another: white added where positive, black where negative."""
    return [
        (place, mixed(color, _WHITE if part >= 0 else _BLACK, abs(part)))
        for place, part in ((0.0, first), (1.0, last))
    ]


def _round_light(color: Color) -> list[tuple[float, Color]]:
    """How a cylinder takes light from the left."""
    return [
        (0.0, mixed(color, _BLACK, 0.12)),
        (0.28, mixed(color, _WHITE, 0.22)),
        (0.60, color),
        (0.92, mixed(color, _BLACK, 0.30)),
        (1.0, mixed(color, _BLACK, 0.24)),
    ]


def _falloff(strength: float) -> list[int]:
    """Of a radial gradient (0 in the middle): full there, nothing from 180 on."""
    curve = [max(0.0, 1 - v / 180) for v in range(256)]
    return [round(c * c * (3 - 2 * c) * 255 * strength) for c in curve]


def _scaled(strength: float) -> list[int]:
    return [round(v * strength) for v in range(256)]
