"""The brush of the example photos: smooth outlines, soft shading and shadows with Pillow.

Coordinates are in picture pixels; everything is drawn at SCALE times that and reduced at the
end, which is what makes the edges clean. Nothing is random: same calls, same pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, ...]
"""(x, y), or (x, y, 1) for a corner that the outline does not round."""
Color = tuple[int, int, int]

SCALE = 2
_STEPS = 14  # straight pieces per curve; finer cannot be seen at SCALE 2
_SOFT = 4  # blurs run at a quarter of the size: nobody sees the difference, 16 times faster


def path(points: str) -> list[Point]:
    """The points of "x,y x,y! x,y": the exclamation mark makes a corner."""
    return [
        (*map(float, point.rstrip("!").split(",")), *([1] if point.endswith("!") else []))
        for point in points.split()
    ]


def smooth(points: Sequence[Point], *, closed: bool = True) -> list[tuple[float, float]]:
    """The outline through `points`, as a Catmull-Rom spline that respects corners."""
    count = len(points)
    out: list[tuple[float, float]] = []
    for i in range(count if closed else count - 1):
        here, there = points[i], points[(i + 1) % count]
        before = here if _is_corner(here) or (not closed and i == 0) else points[i - 1]
        is_last = not closed and i == count - 2
        after = there if _is_corner(there) or is_last else points[(i + 2) % count]
        out += [_spline(before, here, there, after, step / _STEPS) for step in range(_STEPS)]
    if not closed:
        out.append((points[-1][0], points[-1][1]))
    return out


def _is_corner(point: Point) -> bool:
    return len(point) > 2


def _spline(a: Point, b: Point, c: Point, d: Point, t: float) -> tuple[float, float]:
    def axis(k: int) -> float:
        return 0.5 * (
            2 * b[k]
            + (c[k] - a[k]) * t
            + (2 * a[k] - 5 * b[k] + 4 * c[k] - d[k]) * t**2
            + (3 * b[k] - a[k] - 3 * c[k] + d[k]) * t**3
        )

    return axis(0), axis(1)


def blurred(mask: Image.Image, radius: float) -> Image.Image:
    """The mask, softened by `radius` picture pixels."""
    small = mask.reduce(_SOFT).filter(ImageFilter.GaussianBlur(radius * SCALE / _SOFT))
    return small.resize(mask.size, Image.Resampling.BICUBIC)


def moved(mask: Image.Image, dx: float, dy: float) -> Image.Image:
    """The mask, shifted; what leaves is gone, what enters is empty."""
    out = Image.new("L", mask.size)
    out.paste(mask, (round(dx * SCALE), round(dy * SCALE)))
    return out


class Canvas:
    """A picture in the making, `width` by `height` pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._size = (width * SCALE, height * SCALE)
        self.image = Image.new("RGB", self._size, "white")

    def finish(self) -> Image.Image:
        """The picture at its real size."""
        return self.image.resize((self.width, self.height), Image.Resampling.LANCZOS)

    # --- masks -------------------------------------------------------------------------

    def shape(self, points: Sequence[Point]) -> Image.Image:
        """What lies within the closed outline through `points`."""
        mask = Image.new("L", self._size)
        ImageDraw.Draw(mask).polygon(_scaled(smooth(points)), fill=255)
        return mask

    def ellipse(self, x: float, y: float, rx: float, ry: float) -> Image.Image:
        """A filled ellipse around (x, y)."""
        mask = Image.new("L", self._size)
        box = [v * SCALE for v in (x - rx, y - ry, x + rx, y + ry)]
        ImageDraw.Draw(mask).ellipse(box, fill=255)
        return mask

    def box(self, x0: float, y0: float, x1: float, y1: float, radius: float = 0) -> Image.Image:
        """A filled rectangle with rounded corners."""
        mask = Image.new("L", self._size)
        box = [v * SCALE for v in (x0, y0, x1, y1)]
        ImageDraw.Draw(mask).rounded_rectangle(box, radius * SCALE, fill=255)
        return mask

    def line(self, points: Sequence[Point], width: float, *, closed: bool = False) -> Image.Image:
        """A stroke of even width with round ends."""
        mask = Image.new("L", self._size)
        draw = ImageDraw.Draw(mask)
        radius = width * SCALE / 2
        strokes = _scaled(smooth(points, closed=closed))
        if closed:
            strokes.append(strokes[0])
        draw.line(strokes, fill=255, width=round(width * SCALE))
        for x, y in strokes:  # round joints: Pillow's own leave hairline gaps on tight curves
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        return mask

    def dashes(self, points: Sequence[Point], width: float, dash: float) -> Image.Image:
        """A line of stitches: dashes of `dash` pixels with gaps as long."""
        mask = Image.new("L", self._size)
        draw = ImageDraw.Draw(mask)
        strokes = _scaled(smooth(points, closed=False))
        walked = 0.0
        for a, b in itertools.pairwise(strokes):
            length = math.dist(a, b)
            parts = max(1, round(length / (dash * SCALE / 3)))
            for part in range(parts):
                if (walked + length * part / parts) % (2 * dash * SCALE) < dash * SCALE:
                    ends = [
                        (a[0] + (b[0] - a[0]) * k / parts, a[1] + (b[1] - a[1]) * k / parts)
                        for k in (part, part + 1)
                    ]
                    draw.line(ends, fill=255, width=round(width * SCALE))
            walked += length
        return mask

    # --- painting ----------------------------------------------------------------------

    def sweep(self, top: Color, middle: Color, bottom: Color, horizon: float = 0.62) -> None:
        """Fill all: a wall from `top` to `middle`, and below `horizon` a floor to `bottom`."""
        rows = 64
        column = Image.new("RGB", (1, rows))
        for y in range(rows):
            at = y / (rows - 1)
            pair = (top, middle, at / horizon)
            if at > horizon:
                pair = (middle, bottom, (at - horizon) / (1 - horizon))
            column.putpixel((0, y), mix(*pair))
        self.image.paste(column.resize(self._size, Image.Resampling.BICUBIC))

    def paint(self, mask: Image.Image, color: Color, opacity: float = 1.0) -> None:
        """Lay `color` over what the mask shows."""
        cover = mask if opacity >= 1 else mask.point([round(v * opacity) for v in range(256)])
        self.image.paste(color, (0, 0), cover)

    def paint_across(self, mask: Image.Image, stops: Sequence[tuple[float, Color]]) -> None:
        """Lay a left-to-right gradient over the mask's own width: how a cylinder is lit."""
        bounds = mask.getbbox()
        if bounds is None:
            return
        row = Image.new("RGB", (256, 1))
        for x in range(256):
            row.putpixel((x, 0), _at(stops, x / 255))
        width, height = bounds[2] - bounds[0], bounds[3] - bounds[1]
        gradient = row.resize((width, height), Image.Resampling.BICUBIC)
        self.image.paste(gradient, bounds[:2], mask.crop(bounds))

    def shade(self, mask: Image.Image, radius: float, strength: float = 1.0) -> None:
        """Give the mask volume: lit from the upper left, dark to the lower right."""
        soft = blurred(mask, radius)
        step = radius * 0.7
        relief = ImageChops.subtract(moved(soft, -step, -step), moved(soft, step, step), 2, 128)
        gain = [max(0, min(255, round(128 + (v - 128) * strength))) for v in range(256)]
        light = Image.merge("RGB", (relief.point(gain),) * 3)
        lit = ImageChops.overlay(self.image, light)
        self.image.paste(lit, (0, 0), mask)

    def fold(
        self, points: Sequence[Point], width: float, clip: Image.Image, *, opacity: float
    ) -> None:
        """A crease in cloth or leather: a dark soft stroke with a light one beside it."""
        for shift, color, part in ((0.0, (20, 20, 32), 1.0), (-width * 0.9, (255, 255, 250), 0.8)):
            stroke = moved(blurred(self.line(points, width), width * 0.6), shift, shift * 0.5)
            self.paint(ImageChops.multiply(stroke, clip), color, opacity * part)

    def cast(self, mask: Image.Image, dx: float, dy: float, radius: float, opacity: float) -> None:
        """The soft shadow of a mask, behind what is painted next."""
        self.paint(blurred(moved(mask, dx, dy), radius), (28, 26, 34), opacity)

    def cast_light(self, mask: Image.Image, radius: float, opacity: float) -> None:
        """A soft white gleam."""
        self.paint(blurred(mask, radius), (255, 255, 255), opacity)

    def ground(self, x: float, y: float, rx: float, ry: float) -> None:
        """The shadow of something that stands at (x, y): wide and faint, narrow and dark."""
        self.paint(blurred(self.ellipse(x, y, rx * 1.12, ry * 1.7), ry * 1.4), (40, 36, 44), 0.28)
        self.paint(blurred(self.ellipse(x, y, rx, ry * 0.6), ry * 0.35), (22, 18, 26), 0.5)


def mix(a: Color, b: Color, part: float) -> Color:
    """`a`, with `part` (0..1) of `b` in it."""
    part = max(0.0, min(1.0, part))
    return (
        round(a[0] + (b[0] - a[0]) * part),
        round(a[1] + (b[1] - a[1]) * part),
        round(a[2] + (b[2] - a[2]) * part),
    )


def _at(stops: Sequence[tuple[float, Color]], where: float) -> Color:
    for (start, first), (end, second) in itertools.pairwise(stops):
        if where <= end:
            return mix(first, second, (where - start) / (end - start))
    return stops[-1][1]


def _scaled(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * SCALE, y * SCALE) for x, y in points]
