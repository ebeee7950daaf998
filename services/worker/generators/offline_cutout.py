"""Cutting the subject out of a photo: by its transparency, or by difference from its backdrop.

The backdrop is modelled from the photo's left and right border (studio sweeps change from top
to bottom), then flooded from the border inwards at a small size: over what matches, and over
soft shadows, which are darker, of the same hue and without sharp edges. The full-size difference
then draws the edge within a narrow band around that coarse outline, so that it is never jagged.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageFilter, ImageStat

from services.worker.generation import Reference
from services.worker.generators.offline_source import opened

_SMALL = 208
"""Long side in pixels of the flooded map: the flood is Python, some 20 ms at this size."""

_MIN_BACKDROP, _MIN_SUBJECT = 0.05, 0.008  # of the picture; else it was not cut out
_BUSY_BORDER = 18.0  # mean difference of a border from its own model, in levels
_HOLE = (0.0015, 0.10)  # a hole's share of the picture: handles, not the specks in a print

_SPECK = 0.001  # of the picture: what is no piece of anything


@dataclass(frozen=True, slots=True)
class Cutout:
    """A subject, trimmed to its own bounds.

    Attributes:
        image: RGBA.
        is_cut: false where no subject was found, and the image is the whole photo.
        grounded: false where the photo's lower border cuts the subject off.
    """

    image: Image.Image
    is_cut: bool
    grounded: bool = True


class CutoutCache:
    """The last few cut-outs, by their photo's bytes: the variations of a job share their inputs.

    Safe for threads: two that miss together both do the work, with the same result. Holds at
    most `size` cut-outs of at most some 5 MB each.
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._held: OrderedDict[tuple[bytes, int], Cutout] = OrderedDict()
        self._lock = threading.Lock()

    def cutout(self, reference: Reference, *, long_side: int) -> Cutout:
        """`cutout` of the reference, decoded to `long_side`; raises GenerationError(BAD_INPUT).

        What it returns is shared: nobody may paint on it.
        """
        key = hashlib.sha256(reference.data).digest(), long_side
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = cutout(opened(reference, long_side=long_side))
        with self._lock:
            self._held[key] = made
            while len(self._held) > self._size:
                self._held.popitem(last=False)
        return made


def cutout(photo: Image.Image) -> Cutout:
    """The photo's subject without its backdrop; the whole photo where none can be told apart."""
    mask = subject_mask(photo)
    bounds = bounds_of(mask, above=24) if mask else None
    if mask is None or bounds is None:
        return Cutout(photo.convert("RGBA"), is_cut=False)
    subject = photo.convert("RGBA")
    subject.putalpha(mask)
    return Cutout(subject.crop(bounds), is_cut=True, grounded=bounds[3] < photo.height - 3)


def subject_mask(photo: Image.Image) -> Image.Image | None:
    """Where the subject is (L, 255 = subject), the size of the photo; None if it cannot tell."""
    if photo.mode == "RGBA":
        alpha = photo.getchannel("A")
        if _share(alpha.point(_above(16))) < 1 - _MIN_BACKDROP / 2:
            return alpha
    rgb = photo.convert("RGB")
    factor = max(1.0, max(rgb.size) / _SMALL)
    size = max(8, round(rgb.width / factor)), max(8, round(rgb.height / factor))
    small = rgb.resize(size, Image.Resampling.BOX)
    backdrop = _backdrop(small)
    noise = _border_noise(small, backdrop)
    if noise > _BUSY_BORDER:
        return None
    edges = _edges(rgb, size)
    coarse = _coarse(small, backdrop, edges, tolerance=min(24.0, 7 + 2.5 * noise))
    subject = _share(coarse)
    if subject < _MIN_SUBJECT or subject > 1 - _MIN_BACKDROP or _is_scenery(coarse):
        return None
    return _refined(rgb, backdrop, coarse)


def bounds_of(mask: Image.Image, *, above: int = 100) -> tuple[int, int, int, int] | None:
    """The box around all of the mask that is brighter than `above`; None if nothing is."""
    return mask.point(_above(above)).getbbox()


def _backdrop(small: Image.Image) -> Image.Image:
    """The photo without its subject: each row drawn from its left end to its right end."""
    width, height = small.size
    ends = Image.new("RGB", (2, height))
    for x, box in ((0, (0, 0, 3, height)), (1, (width - 3, 0, width, height))):
        strip = small.crop(box).resize((1, height), Image.Resampling.BOX)
        ends.paste(_without_outliers(strip), (x, 0))
    return ends.resize(small.size, Image.Resampling.BILINEAR)


def _without_outliers(strip: Image.Image) -> Image.Image:
    """The strip, with what is far from its median (a subject that touches the border) evened."""
    median = tuple(round(v) for v in ImageStat.Stat(strip).median)
    flat = Image.new("RGB", strip.size, median)
    return Image.composite(
        flat, strip, _largest(ImageChops.difference(strip, flat)).point(_above(60))
    )


def _border_noise(small: Image.Image, backdrop: Image.Image) -> float:
    difference = _largest(ImageChops.difference(small, backdrop))
    width, height = small.size
    sides = ((0, 0, width, 3), (0, 0, 3, height), (width - 3, 0, width, height))
    return max(ImageStat.Stat(difference.crop(side)).mean[0] for side in sides)


def _edges(rgb: Image.Image, size: tuple[int, int]) -> Image.Image:
    """How sharp the sharpest edge within each small cell is, in levels.

    Measured before the photo is reduced: a shadow's end is as steep as a subject's edge after.
    """
    grey = rgb.convert("L").reduce(2)
    contrast = ImageChops.subtract(
        grey.filter(ImageFilter.MaxFilter(3)), grey.filter(ImageFilter.MinFilter(3))
    )
    return contrast.filter(ImageFilter.MaxFilter(3)).resize(size, Image.Resampling.NEAREST)


def _coarse(
    small: Image.Image, backdrop: Image.Image, edges: Image.Image, *, tolerance: float
) -> Image.Image:
    """The subject at the small size, 0 or 255: what the flood did not reach, less its holes."""
    difference = _largest(ImageChops.difference(small, backdrop))
    tint, lighter_by = _tint(small, backdrop)
    shadow = difference.point(_below(112))
    for part, limit in ((tint, 14), (lighter_by, 4)):
        shadow = ImageChops.darker(shadow, part.point(_below(limit)))
    soft_shadow = ImageChops.darker(shadow, edges.point(_below(26)))
    alike = difference.point(_below(tolerance))
    hollow = difference.point(_below(tolerance + 1))
    reached = _flooded(ImageChops.lighter(alike, soft_shadow), hollow)
    # The cell with the edge in it is half shadow: it goes too, where its colour allows.
    rim = ImageChops.darker(reached.filter(ImageFilter.MaxFilter(3)), shadow)
    subject = ImageChops.invert(ImageChops.lighter(reached, rim))
    return subject.filter(ImageFilter.MedianFilter(3))


def _tint(photo: Image.Image, backdrop: Image.Image) -> tuple[Image.Image, Image.Image]:
    """How far the photo is from a mere darkening of its backdrop: by hue, and by being lighter."""
    darker_by = ImageChops.subtract(backdrop, photo)
    hue = ImageChops.subtract(_largest(darker_by), _smallest(darker_by))
    return hue, _largest(ImageChops.subtract(photo, backdrop))


def _flooded(passable: Image.Image, hollow: Image.Image) -> Image.Image:
    """What can be reached from the border over `passable`, and enclosed parts of `hollow`."""
    width, height = passable.size
    stride = width + 1  # one blocked column ends every row, so that no step wraps around
    field = _padded(passable)
    border = [*range(width), *((height - 1) * stride + x for x in range(width))]
    border += [y * stride + x for y in range(height) for x in (0, width - 1)]
    reached = bytearray(len(field))
    for cell in _walk(field, border, stride):
        reached[cell] = 255
    rest = bytearray(a if not b else 0 for a, b in zip(_padded(hollow), reached, strict=True))
    least, most = (share * width * height for share in _HOLE)
    for hole in _islands(rest, stride):
        if least <= len(hole) <= most:
            for cell in hole:
                reached[cell] = 255
    out = Image.frombytes("L", (stride, height), bytes(reached))
    return out.crop((0, 0, width, height))


def _is_scenery(coarse: Image.Image) -> bool:
    """Whether pieces of the backdrop itself were left: arches, plinths, patches of light.

    A subject may stand in pieces, and may be cut off by the border; only a scene does both, above
    or beside.
    """
    field, stride = _padded(coarse), coarse.width + 1
    islands, touches = 0, False
    for island in _islands(field, stride):
        if len(island) >= coarse.width * coarse.height * _SPECK:
            islands += 1
            touches |= any(c < stride or c % stride in (0, coarse.width - 1) for c in island)
    return touches and islands > 1


def _padded(mask: Image.Image) -> bytearray:
    field = Image.new("L", (mask.width + 1, mask.height))
    field.paste(mask)
    return bytearray(field.tobytes())


def _islands(field: bytearray, stride: int) -> Iterator[list[int]]:
    """The connected parts of `field`, which is empty in the end."""
    start = field.find(255)
    while start >= 0:
        yield _walk(field, [start], stride)
        start = field.find(255, start)


def _walk(field: bytearray, starts: list[int], stride: int) -> list[int]:
    """Every cell of `field` connected to `starts`; they are cleared in it."""
    end = len(field)
    found = []
    stack = starts
    while stack:
        cell = stack.pop()
        if 0 <= cell < end and field[cell]:
            field[cell] = 0
            found.append(cell)
            stack += (cell - 1, cell + 1, cell - stride, cell + stride)
    return found


def _refined(rgb: Image.Image, backdrop: Image.Image, coarse: Image.Image) -> Image.Image:
    """The coarse outline at full size, its edge drawn by the difference from the backdrop."""
    size = rgb.size
    model = backdrop.resize(size, Image.Resampling.BICUBIC)
    difference = _largest(ImageChops.difference(rgb, model))
    smooth = coarse.filter(ImageFilter.GaussianBlur(1.1))
    outline = smooth.resize(size, Image.Resampling.BICUBIC).point(_ramp(100, 190))
    edge = ImageChops.darker(difference.point(_ramp(9, 26)), outline)
    # Beyond the outline only what cannot be shadow belongs to the subject.
    hue, lighter_by = _tint(rgb, model)
    certain = ImageChops.lighter(hue.point(_ramp(12, 30)), lighter_by.point(_ramp(6, 20)))
    certain = ImageChops.lighter(certain, difference.point(_ramp(96, 130)))
    inner = coarse.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.GaussianBlur(1.3))
    core = inner.resize(size, Image.Resampling.BICUBIC).point(_ramp(70, 170))
    reach = coarse.filter(ImageFilter.MaxFilter(3)).resize(size, Image.Resampling.BICUBIC)
    alpha = ImageChops.lighter(core, ImageChops.darker(reach, ImageChops.lighter(edge, certain)))
    # One pixel in, so that no rim of the old backdrop's colour comes along; then feathered.
    return alpha.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.GaussianBlur(0.9))


def _largest(image: Image.Image) -> Image.Image:
    r, g, b = image.split()
    return ImageChops.lighter(ImageChops.lighter(r, g), b)


def _smallest(image: Image.Image) -> Image.Image:
    r, g, b = image.split()
    return ImageChops.darker(ImageChops.darker(r, g), b)


def _share(mask: Image.Image) -> float:
    return ImageStat.Stat(mask).mean[0] / 255


def _above(limit: float) -> list[int]:
    return [255 if v > limit else 0 for v in range(256)]


def _below(limit: float) -> list[int]:
    return [255 if v <= limit else 0 for v in range(256)]


def _ramp(low: int, high: int) -> list[int]:
    return [max(0, min(255, round((v - low) * 255 / (high - low)))) for v in range(256)]
