"""The sets of the offline generator: what the products stand in front of and upon.

Each takes the stage, its palette, the middle of the products' zone and how wide they stand.
The heights agree with the spots of `offline_layout`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageFilter, ImageOps

from services.worker.generators.offline_palette import Color, Palette, mixed
from services.worker.generators.offline_stage import Spot, Stage

_WHITE: Color = (255, 255, 255)
_BLACK: Color = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a scene may know.

    Attributes:
        palette: its colours.
        middle: x of the products' zone, in parts of the width.
        is_wide: several products side by side: props must carry them all.
        is_sparse: no props beside the products: someone stands there.
        photo: the picture to build on, for the photo scenes.
        rng: this variation's own.
    """

    palette: Palette
    middle: float
    is_wide: bool
    is_sparse: bool
    photo: Image.Image | None
    rng: random.Random


def build(name: str, stage: Stage, setting: Setting) -> None:
    """Paint the scene `name` on the whole stage."""
    _SCENES[name](stage, setting)


def _sweep(stage: Stage, setting: Setting) -> None:
    palette = setting.palette
    back, front = palette.wall, palette.floor
    stops = [
        (0.0, mixed(back, palette.shadow, 0.10)),
        (0.52, mixed(back, palette.light, 0.16)),
        (0.70, mixed(front, palette.light, 0.30)),
        (1.0, mixed(front, palette.shadow, 0.08)),
    ]
    stage.rows(stops)
    stage.glow((setting.middle - 0.08, 0.36), 0.85, palette.light, 0.55)
    stage.vignette(palette.shadow, 0.14)


def _halo(stage: Stage, setting: Setting) -> None:
    _sweep(stage, setting)
    center = (setting.middle, 0.47)
    palette = setting.palette
    stage.soft_ellipse(
        (center[0] + 0.015, center[1] + 0.02), (0.35, 0.35), 0.02, palette.shadow, 0.16
    )
    stage.disc(center, 0.35, mixed(palette.accent, palette.wall, 0.30))


def _room(stage: Stage, setting: Setting, horizon: float) -> None:
    """A wall that meets a floor."""
    palette = setting.palette
    wall = [
        (0.0, mixed(palette.wall, palette.shadow, 0.06)),
        (1.0, mixed(palette.wall, palette.light, 0.18)),
    ]
    floor = [
        (0.0, mixed(palette.floor, palette.shadow, 0.10)),
        (0.2, mixed(palette.floor, palette.light, 0.10)),
        (1.0, mixed(palette.floor, palette.shadow, 0.04)),
    ]
    stage.rows(wall, (0, 0, 1, horizon))
    stage.rows(floor, (0, horizon, 1, 1))
    low, high = horizon + 0.006, horizon - 0.012
    corner = [(-0.1, high), (1.1, high), (1.1, low), (-0.1, low)]
    stage.soft([corner], 0.008, palette.shadow, 0.22)
    stage.glow((setting.middle - 0.22, 0.18), 0.8, palette.light, 0.45)


def _plinth(stage: Stage, setting: Setting) -> None:
    _room(stage, setting, 0.77)
    palette, middle = setting.palette, setting.middle
    stage.disc((middle + 0.13, 0.34), 0.25, mixed(palette.accent, palette.wall, 0.15))
    stone = mixed(palette.floor, palette.light, 0.35)
    scale = stage.height / stage.unit
    if setting.is_wide:
        stage.block(middle, 0.685, 0.94 * stage.width / stage.unit, 0.16 * scale, stone)
    else:
        if not setting.is_sparse:
            side = middle - 0.30
            stage.drum(side, 0.80, 0.10, 0.055, mixed(palette.accent, palette.light, 0.20))
            stage.sphere((side, 0.80 - 0.062 * stage.unit / stage.height), 0.062, palette.accent)
        stage.drum(middle, 0.685, 0.27, 0.19 * scale, stone)
    stage.vignette(palette.shadow, 0.13)


def _arch(stage: Stage, setting: Setting) -> None:
    _room(stage, setting, 0.74)
    palette, middle = setting.palette, setting.middle
    width = 0.86 * stage.width / stage.unit if setting.is_wide else 0.60
    deep = mixed(palette.accent, palette.shadow, 0.12)
    rim = mixed(palette.wall, palette.light, 0.45)
    stage.arch(middle, width + 0.045, 0.115, 0.74, [(0, rim), (1, mixed(rim, palette.wall, 0.4))])
    stage.arch(
        middle,
        width,
        0.14,
        0.74,
        [(0, mixed(deep, _BLACK, 0.12)), (1, mixed(deep, palette.light, 0.38))],
    )
    stage.glow((middle, 0.5), 0.34, palette.light, 0.30)
    slab = mixed(palette.floor, palette.light, 0.28)
    stage.block(middle, 0.785, width + 0.10, 0.085 * stage.height / stage.unit, slab)
    stage.vignette(palette.shadow, 0.12)


def _window(stage: Stage, setting: Setting) -> None:
    _room(stage, setting, 0.76)
    palette = setting.palette
    left = 0.30 + setting.rng.uniform(-0.06, 0.10)
    panes: list[list[Spot]] = []
    for column in range(2):
        for row in range(3):
            x, y = left + column * 0.25, 0.02 + row * 0.24 + column * 0.05
            panes.append(
                [(x, y), (x + 0.22, y + 0.044), (x + 0.29, y + 0.25), (x + 0.07, y + 0.206)]
            )
    stage.soft(panes, 0.012, palette.light, 0.62)
    leaves = _fronds((0.04, 0.98), setting.rng) + _fronds((1.02, 0.70), setting.rng)
    stage.soft(leaves, 0.016, palette.shadow, 0.15)
    pool = [(0.30, 0.80), (0.86, 0.80), (1.04, 0.98), (0.44, 0.98)]
    stage.soft([pool], 0.02, palette.light, 0.32)
    stage.vignette(palette.shadow, 0.10)


def _fronds(root: Spot, rng: random.Random) -> list[list[Spot]]:
    """The leaves of a palm whose stem stands at `root`, as outlines."""
    leaves = []
    for place in range(7):
        turn = math.radians(-66 + place * 22 + rng.uniform(-6, 6))
        length = rng.uniform(0.34, 0.48)
        tip = (root[0] + math.sin(turn) * length, root[1] - math.cos(turn) * length)
        half = ((root[0] + tip[0]) / 2, (root[1] + tip[1]) / 2)
        side = (math.cos(turn) * 0.035, math.sin(turn) * 0.035)
        leaves.append(
            [
                root,
                (half[0] - side[0], half[1] - side[1]),
                tip,
                (half[0] + side[0], half[1] + side[1]),
            ]
        )
    return leaves


def _steps(stage: Stage, setting: Setting) -> None:
    _room(stage, setting, 0.80)
    palette, middle = setting.palette, setting.middle
    scale = stage.height / stage.unit
    tones = (
        mixed(palette.accent, palette.wall, 0.25),
        mixed(palette.floor, palette.light, 0.30),
        mixed(palette.accent, palette.light, 0.35),
    )
    if setting.is_wide:
        stage.block(middle, 0.655, 0.94 * stage.width / stage.unit, 0.23 * scale, tones[1])
    else:
        if not setting.is_sparse:
            stage.block(middle + 0.29, 0.50, 0.24, 0.35 * scale, tones[0])
            stage.block(middle - 0.36, 0.735, 0.28, 0.125 * scale, tones[2])
            ball = 0.735 - 0.085 * stage.unit / stage.height
            stage.sphere((middle - 0.36, ball), 0.085, palette.accent)
        shift = 0.0 if setting.is_sparse else 0.06
        stage.block(middle + shift, 0.655, 0.60, 0.23 * scale, tones[1])
    stage.vignette(palette.shadow, 0.13)


def _close(stage: Stage, setting: Setting) -> None:
    palette = setting.palette
    stage.rows(
        [
            (0, mixed(palette.wall, palette.light, 0.20)),
            (1, mixed(palette.wall, palette.shadow, 0.10)),
        ]
    )
    stage.glow((0.2, 0.1), 0.9, palette.light, 0.5)
    stage.disc((0.80, 0.26), 0.46, mixed(palette.accent, palette.wall, 0.35))
    stage.vignette(palette.shadow, 0.16)


def _flatlay(stage: Stage, setting: Setting) -> None:
    palette = setting.palette
    stage.rows([(0, mixed(palette.wall, palette.light, 0.18)), (1, palette.wall)])
    tilt = setting.rng.uniform(0.10, 0.24)
    edge = 0.50
    sheet = [(edge + tilt, -0.05), (1.05, -0.05), (1.05, 1.05), (edge - tilt, 1.05)]
    stage.soft([[(x - 0.008, y + 0.004) for x, y in sheet]], 0.014, palette.shadow, 0.34)
    stage.panel(sheet, mixed(palette.accent, palette.light, 0.30))
    stage.soft(
        _fronds((1.0, 1.04), setting.rng) + _fronds((0.0, 0.5), setting.rng),
        0.022,
        palette.shadow,
        0.13,
    )
    stage.glow((0.15, 0.1), 0.9, palette.light, 0.42)
    stage.vignette(palette.shadow, 0.10)


def _photo(stage: Stage, setting: Setting) -> None:
    _hang(stage, setting, blur=0.006)
    stage.vignette(_BLACK, 0.26)


def _photo_close(stage: Stage, setting: Setting) -> None:
    _hang(stage, setting, blur=0.022, flip=True)
    stage.vignette(_BLACK, 0.30)


def _photo_table(stage: Stage, setting: Setting) -> None:
    _hang(stage, setting, blur=0.014)
    palette = setting.palette
    top = mixed(palette.floor, palette.light, 0.25)
    stage.soft([[(-0.1, 0.73), (1.1, 0.73), (1.1, 0.80), (-0.1, 0.80)]], 0.02, _BLACK, 0.30)
    stage.rows(
        [(0, mixed(top, _WHITE, 0.25)), (0.06, top), (1, mixed(top, palette.shadow, 0.16))],
        (0, 0.765, 1, 1),
    )
    stage.glow((setting.middle - 0.1, 0.82), 0.5, palette.light, 0.35)
    stage.vignette(_BLACK, 0.22)


def _photo_plinth(stage: Stage, setting: Setting) -> None:
    _hang(stage, setting, blur=0.010, flip=True)
    palette = setting.palette
    stone = mixed(palette.wall, palette.light, 0.35)
    scale = stage.height / stage.unit
    if setting.is_wide:
        stage.block(0.5, 0.705, 0.94 * stage.width / stage.unit, 0.24 * scale, stone)
    else:
        stage.drum(setting.middle, 0.705, 0.28, 0.32 * scale, stone)
    stage.vignette(_BLACK, 0.22)


def _hang(stage: Stage, setting: Setting, *, blur: float, flip: bool = False) -> None:
    """Fill the stage with the photo: cropped to fit, and out of focus like a far wall."""
    photo = setting.photo
    assert photo is not None, "photo scenes are chosen only where there is a photo"
    rng = setting.rng
    small = max(1, stage.width // 2), max(1, stage.height // 2)
    zoom = rng.uniform(0.0, 0.10)
    fitted = ImageOps.fit(
        photo.convert("RGB"),
        small,
        Image.Resampling.BICUBIC,
        bleed=zoom / 2,
        centering=(rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.7)),
    )
    if flip:
        fitted = ImageOps.mirror(fitted)
    fitted = fitted.filter(ImageFilter.GaussianBlur(blur * min(small)))
    stage.image.paste(fitted.resize(stage.image.size, Image.Resampling.BICUBIC))


_SCENES: dict[str, Callable[[Stage, Setting], None]] = {
    "sweep": _sweep,
    "halo": _halo,
    "plinth": _plinth,
    "arch": _arch,
    "window": _window,
    "steps": _steps,
    "close": _close,
    "flatlay": _flatlay,
    "photo": _photo,
    "photo_close": _photo_close,
    "photo_table": _photo_table,
    "photo_plinth": _photo_plinth,
}
