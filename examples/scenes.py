"""The example pictures that are not products: a model, a background and a moodboard."""

from __future__ import annotations

import math

from PIL import Image, ImageChops

from examples.drawing import Canvas, Color, Point, blurred, mix, path

_WHITE: Color = (255, 255, 255)


def model() -> Image.Image:
    """A standing figure in a long dress, as a silhouette with soft volume (800 x 1200)."""
    canvas = Canvas(800, 1200)
    canvas.sweep((226, 219, 212), (218, 209, 200), (202, 191, 181), 0.80)
    canvas.ground(408, 1130, 110, 16)
    skin, dress, hair = (178, 128, 104), (92, 74, 92), (62, 46, 46)
    for leg in (
        path("366,900! 368,1010 372,1092 344,1128 392,1134 404,1096 410,1000 408,900!"),
        path("424,900! 432,1010 438,1092 430,1130 476,1136 470,1094 474,1000 470,900!"),
    ):
        limb = canvas.shape(leg)
        canvas.paint(limb, skin)
        canvas.shade(limb, 10, 0.45)
    arms: list[list[Point]] = [
        path("326,326 304,420 290,530 282,636"),
        path("492,326 514,420 528,530 536,636"),
    ]
    for arm, width in zip(arms, (37, 37), strict=True):
        limb = canvas.line(arm, width)
        canvas.paint(limb, skin)
        canvas.shade(limb, 12, 0.45)
    for x in (280, 538):
        hand = canvas.ellipse(x, 656, 17, 32)
        canvas.paint(hand, skin)
        canvas.shade(hand, 12, 0.5)
    canvas.paint(
        canvas.shape(path("384,200! 386,262 330,300! 410,360 488,300! 432,262 434,200!")),
        mix(skin, (40, 20, 20), 0.18),
    )
    gown = canvas.shape(
        path(
            "352,288! 322,300 304,340 330,380 344,440 346,500 322,600 292,760 "
            "262,930! 330,950 410,956 490,950 556,930! 530,760 498,600 470,500 "
            "476,440 490,380 514,340 496,300 466,288! 410,330"
        )
    )
    canvas.paint(gown, dress)
    canvas.shade(gown, 34, 0.9)
    folds: tuple[list[Point], ...] = (
        path("372,540 352,720 326,950"),
        path("402,560 398,740 384,956"),
        path("430,560 446,740 446,956"),
        path("456,540 490,720 512,946"),
    )
    for fold in folds:
        canvas.fold(fold, 13, gown, opacity=0.34)
    belt = ImageChops.multiply(canvas.line(path("330,508 408,520 486,508"), 20), gown)
    canvas.paint(belt, (184, 142, 92))
    canvas.shade(belt, 6, 0.8)
    head = canvas.ellipse(410, 158, 56, 72)
    canvas.paint(
        canvas.shape(path("410,62 336,100 330,190 350,236 410,220 468,236 490,190 484,100")), hair
    )
    canvas.paint(head, skin)
    canvas.shade(head, 24, 0.4)
    fringe = canvas.shape(path("410,64 350,92 338,168! 372,128 420,112 462,130 482,168! 472,92"))
    canvas.paint(fringe, hair)
    canvas.shade(fringe, 16, 1.2)
    return canvas.finish()


def background() -> Image.Image:
    """A sunlit plaster room with an arch to the sea and a stone ledge (1200 x 900)."""
    canvas = Canvas(1200, 900)
    canvas.sweep((238, 216, 190), (231, 203, 174), (206, 170, 136), 0.72)
    arch = canvas.shape(
        path("700,640! 700,330 716,250 772,180 860,152 948,180 1004,250 1020,330 1020,640!")
    )
    _view(canvas, arch)
    jamb = ImageChops.subtract(arch, _shifted_arch(arch, 26))
    canvas.paint(jamb, (246, 228, 204))
    canvas.shade(jamb, 10, 0.5)
    _window_light(canvas)
    canvas.paint(blurred(canvas.box(0, 636, 1200, 660), 10), (120, 84, 56), 0.35)
    ledge = canvas.box(-20, 648, 1220, 920)
    canvas.paint(ledge, (224, 194, 162))
    canvas.paint(canvas.box(-20, 648, 1220, 664), (246, 224, 196))
    front = canvas.box(-20, 800, 1220, 920)
    canvas.paint(front, (190, 152, 118))
    canvas.paint(blurred(canvas.box(-20, 790, 1220, 806), 6), (120, 84, 56), 0.3)
    glow = canvas.shape(path("120,664! 520,664! 640,796! 200,796!"))
    canvas.paint(blurred(glow, 10), (255, 240, 212), 0.5)
    _plant(canvas)
    return canvas.finish()


def _view(canvas: Canvas, arch: Image.Image) -> None:
    canvas.paint(arch, (186, 216, 226))
    for step in range(10):
        band = canvas.box(600, 150 + step * 32, 1100, 640)
        canvas.paint(ImageChops.multiply(blurred(band, 14), arch), (240, 232, 220), 0.09)
    canvas.paint(ImageChops.multiply(canvas.box(600, 470, 1100, 650), arch), (92, 150, 168))
    canvas.paint(
        ImageChops.multiply(blurred(canvas.box(600, 560, 1100, 650), 24), arch),
        (150, 196, 198),
        0.8,
    )
    canvas.paint(ImageChops.multiply(canvas.ellipse(930, 330, 40, 40), arch), (255, 246, 224), 0.9)


def _shifted_arch(arch: Image.Image, by: int) -> Image.Image:
    out = Image.new("L", arch.size)
    out.paste(arch, (by * 2, by))
    return out


def _window_light(canvas: Canvas) -> None:
    light = Image.new("L", canvas.image.size)
    for column in range(2):
        for row in range(3):
            x, y = 130 + column * 200, 120 + row * 150
            slant = 0.28
            pane: list[Point] = [
                (x, y + x * slant * 0.4, 1),
                (x + 170, y + (x + 170) * slant * 0.4, 1),
                (x + 206, y + 128 + (x + 206) * slant * 0.4, 1),
                (x + 36, y + 128 + (x + 36) * slant * 0.4, 1),
            ]
            light = ImageChops.lighter(light, canvas.shape(pane))
    canvas.paint(blurred(light, 5), (255, 246, 224), 0.55)


def _plant(canvas: Canvas) -> None:
    leaf_color: Color = (92, 116, 84)
    for i, angle in enumerate((-68, -42, -18, 8, 30, 54)):
        turn = math.radians(angle)
        length = 270 - abs(angle) * 1.2
        tip = (1118 + math.sin(turn) * length, 560 - math.cos(turn) * length)
        mid = ((1118 + tip[0]) / 2, (560 + tip[1]) / 2)
        side = (math.cos(turn) * 30, math.sin(turn) * 30)
        leaf = canvas.shape(
            [
                (1118, 566, 1),
                (mid[0] - side[0], mid[1] - side[1]),
                (*tip, 1),
                (mid[0] + side[0], mid[1] + side[1]),
            ]
        )
        canvas.paint(leaf, mix(leaf_color, (200, 206, 150), (i % 3) * 0.16))
        canvas.shade(leaf, 12, 1.0)
    canvas.ground(1118, 742, 84, 18)
    pot = canvas.shape(path("1044,556! 1192,556! 1176,660 1164,744! 1072,744! 1060,660"))
    canvas.paint_across(pot, [(0, (214, 132, 96)), (0.3, (232, 156, 118)), (1, (142, 78, 56))])


def moodboard() -> Image.Image:
    """Paint chips, a dune picture and a fabric on a linen board (1200 x 900)."""
    canvas = Canvas(1200, 900)
    canvas.sweep((239, 232, 222), (236, 228, 217), (231, 222, 210), 0.5)
    chips: tuple[Color, ...] = (
        (193, 98, 68),
        (222, 158, 120),
        (240, 206, 176),
        (126, 138, 106),
        (74, 92, 82),
        (232, 222, 204),
    )
    for i, color in enumerate(chips):
        x, y = 690 + i % 3 * 150, 90 + i // 3 * 196
        _card(canvas, (x, y, x + 132, y + 176), _WHITE)
        canvas.paint(canvas.box(x + 8, y + 8, x + 124, y + 132), color)
        canvas.paint(canvas.box(x + 8, y + 146, x + 70, y + 152), (190, 184, 176))
        canvas.paint(canvas.box(x + 8, y + 158, x + 50, y + 163), (214, 208, 200))
    _dunes(canvas)
    _card(canvas, (690, 500, 1122, 810), (126, 138, 106))
    weave = canvas.box(690, 500, 1122, 810)
    for step in range(24):
        stripe = canvas.box(700 + step * 18, 500, 706 + step * 18, 810)
        canvas.paint(ImageChops.multiply(stripe, weave), (236, 226, 206), 0.5)
    for x, y in ((330, 74), (906, 486)):
        canvas.paint(canvas.box(x - 60, y, x + 60, y + 34), (244, 226, 190), 0.8)
    return canvas.finish()


def _card(canvas: Canvas, at: tuple[int, int, int, int], color: Color) -> None:
    card = canvas.box(*at)
    canvas.cast(card, 3, 8, 8, 0.28)
    canvas.paint(card, color)


def _dunes(canvas: Canvas) -> None:
    _card(canvas, (80, 90, 620, 810), _WHITE)
    frame = canvas.box(100, 110, 600, 730)
    canvas.paint(frame, (244, 214, 188))
    sun = ImageChops.multiply(canvas.ellipse(440, 290, 74, 74), frame)
    canvas.paint(sun, (226, 132, 90))
    for base, color in ((430, (222, 158, 120)), (530, (204, 120, 86)), (630, (160, 78, 56))):
        crest: list[Point] = [
            (60, base + 40),
            (200, base - 50),
            (340, base + 20),
            (480, base + 60),
            (640, base - 30),
            (660, 760, 1),
            (40, 760, 1),
        ]
        dune = ImageChops.multiply(canvas.shape(crest), frame)
        canvas.paint(dune, color)
        canvas.shade(dune, 30, 0.6)
    canvas.paint(canvas.box(100, 756, 330, 764), (198, 190, 182))
    canvas.paint(canvas.box(100, 776, 250, 783), (216, 209, 202))
