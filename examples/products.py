"""The four example products, each alone on a plain studio background (1200 x 1200 pixels)."""

from __future__ import annotations

from PIL import Image, ImageChops

from examples.drawing import Canvas, Color, Point, mix, moved, path

SIDE = 1200
_STUDIO = ((229, 229, 231), (222, 222, 225), (208, 208, 212))


def _studio() -> Canvas:
    canvas = Canvas(SIDE, SIDE)
    canvas.sweep(*_STUDIO)
    return canvas


def _mirrored(points: list[Point]) -> list[Point]:
    """The left half of an outline, closed with its mirror image around the middle."""
    return points + [(SIDE - p[0], *p[1:]) for p in reversed(points)]


def shirt() -> Image.Image:
    """A terracotta T-shirt, laid flat."""
    cloth: Color = (196, 92, 66)
    canvas = _studio()
    half = path(
        "600,322 545,305 502,262 484,226! 400,252 322,292 268,352 212,440 "
        "166,520! 222,566 286,600! 322,552 352,506! 360,640 352,800 "
        "346,992! 470,1006 600,1010"
    )
    body = canvas.shape(_mirrored(half))
    canvas.cast(body, 14, 22, 26, 0.34)
    canvas.cast(body, 4, 6, 7, 0.30)
    inside = canvas.shape(_mirrored(path("600,246 530,238 484,224! 505,275 548,312 600,328")))
    canvas.paint(inside, mix(cloth, (40, 12, 10), 0.42))
    canvas.paint(body, cloth)
    canvas.shade(body, 46, 1.0)
    canvas.shade(body, 12, 0.55)
    for sign in (0, 1):
        for fold, width, opacity in _SHIRT_FOLDS:
            crease = [(SIDE - p[0], *p[1:]) if sign else p for p in fold]
            canvas.fold(crease, width, body, opacity=opacity)
    collar = path("484,226 505,275 548,312 600,326 652,312 695,275 716,226")
    rib = ImageChops.multiply(canvas.line(collar, 34), ImageChops.lighter(body, inside))
    canvas.cast(ImageChops.multiply(rib, body), 2, 6, 5, 0.35)
    canvas.paint(rib, mix(cloth, (120, 40, 26), 0.25))
    canvas.shade(rib, 9, 0.9)
    for hem in (
        path("350,966 470,980 600,984 730,980 850,966"),
        path("182,496 240,542 304,574"),
        path("1018,496 960,542 896,574"),
    ):
        canvas.paint(canvas.dashes(hem, 2, 5), mix(cloth, (70, 20, 14), 0.5), 0.8)
    return canvas.finish()


_SHIRT_FOLDS: tuple[tuple[list[Point], float, float], ...] = (
    (path("352,512 410,470 452,404"), 16, 0.20),
    (path("366,556 410,572 450,570"), 16, 0.12),
    (path("424,780 446,880 432,1000"), 26, 0.11),
    (path("545,860 552,930 540,1006"), 22, 0.07),
    (path("300,330 290,420 240,520"), 14, 0.13),
)


def mug() -> Image.Image:
    """A glazed stoneware mug with coffee in it."""
    glaze: Color = (58, 110, 112)
    clay: Color = (226, 205, 178)
    canvas = _studio()
    canvas.ground(606, 900, 236, 36)
    ring = path("752,500 868,486 926,560 906,690 826,758 744,762")
    handle = canvas.line(ring, 54)
    canvas.paint(handle, mix(glaze, (10, 30, 34), 0.18))
    canvas.shade(handle, 16, 1.5)
    body = canvas.shape(
        path(
            "352,372! 354,600 366,790 392,868 446,902 570,914 694,902 748,868 "
            "774,790 786,600 788,372!"
        )
    )
    canvas.paint_across(body, _cylinder(glaze))
    foot = ImageChops.multiply(
        body, canvas.shape(path("330,770! 440,792 570,798 700,792 810,770! 810,930! 330,930!"))
    )
    canvas.paint_across(foot, _cylinder(clay))
    drip = path("358,768 440,790 570,797 700,790 782,768")
    canvas.paint(ImageChops.multiply(canvas.line(drip, 7), body), mix(glaze, (8, 24, 28), 0.4), 0.6)
    canvas.shade(body, 20, 0.5)
    canvas.paint(canvas.ellipse(570, 372, 218, 52), mix(glaze, (255, 255, 255), 0.36))
    well = canvas.ellipse(570, 374, 203, 43)
    canvas.paint_across(well, [(0, mix(glaze, (5, 20, 22), 0.6)), (1, mix(glaze, (255,) * 3, 0.1))])
    coffee = ImageChops.multiply(canvas.ellipse(570, 400, 196, 42), well)
    canvas.paint_across(coffee, [(0, (46, 26, 17)), (0.6, (78, 46, 29)), (1, (104, 66, 42))])
    gleam = canvas.line(path("430,470 424,600 434,730"), 26)
    canvas.cast_light(gleam, 14, 0.42)
    return canvas.finish()


def _cylinder(color: Color) -> list[tuple[float, Color]]:
    dark, light = (12, 14, 22), (255, 255, 255)
    return [
        (0.0, mix(color, dark, 0.30)),
        (0.10, mix(color, dark, 0.06)),
        (0.26, mix(color, light, 0.20)),
        (0.42, color),
        (0.72, mix(color, dark, 0.22)),
        (0.93, mix(color, dark, 0.46)),
        (1.0, mix(color, dark, 0.34)),
    ]


def sneaker() -> Image.Image:
    """A low sneaker from the side, toe to the left."""
    canvas = _studio()
    canvas.ground(596, 858, 436, 34)
    upper = canvas.shape(
        path(
            "176,772! 166,716 206,660 310,622 430,570 530,486 612,404 668,352 "
            "728,334 762,352 784,402 850,444 926,430 984,372 1022,376 1024,450 "
            "1006,560 1020,680 1030,772!"
        )
    )
    leather, panel, accent = (244, 241, 234), (216, 207, 192), (36, 74, 120)
    canvas.paint(upper, leather)
    lining = canvas.shape(
        path("724,352 770,402 850,458 932,444 992,388 985,410 936,468 850,486 770,440")
    )
    canvas.shade(upper, 52, 1.1)
    canvas.paint(ImageChops.multiply(lining, upper), (62, 66, 78))
    _sneaker_panels(canvas, upper, panel, accent)
    canvas.shade(upper, 14, 0.45)
    for step in range(6):
        x, y = 448 + step * 37, 582 - step * 36
        lace = canvas.line([(x - 34, y - 26), (x + 6, y - 12), (x + 36, y + 20)], 17)
        canvas.cast(ImageChops.multiply(lace, upper), 4, 8, 5, 0.45)
        canvas.paint(lace, (250, 249, 246))
        canvas.shade(lace, 6, 0.9)
    sole = canvas.shape(
        path(
            "160,756! 300,770 600,776 880,768 1038,742! 1046,800 1034,842 "
            "990,858 600,862 250,860 186,846 156,806"
        )
    )
    canvas.cast(ImageChops.multiply(moved(sole, 0, -5), upper), 0, 0, 6, 0.3)
    canvas.paint(sole, (250, 248, 243))
    canvas.shade(sole, 22, 0.9)
    tread = canvas.shape(
        path("166,832! 250,842 600,846 980,840 1040,826! 1030,850 990,864 600,868 250,866 186,854")
    )
    canvas.paint(tread, (196, 152, 104))
    canvas.paint(canvas.line(path("164,792 300,806 600,812 880,804 1040,782"), 4), accent, 0.9)
    return canvas.finish()


def _sneaker_panels(canvas: Canvas, upper: Image.Image, panel: Color, accent: Color) -> None:
    toe = path("352,604 398,660 404,720 388,790! 140,790! 150,700 206,655 300,618")
    heel = path("934,432 988,368 1040,368 1044,790! 838,790! 872,690 898,560")
    eyestay = path("404,590 520,500 610,410 664,362 712,388 690,436 610,520 512,612 446,640")
    wing = path("470,790! 560,700 668,590 742,486! 806,506! 768,620 694,730 640,790!")
    for outline, color in ((toe, panel), (wing, accent), (heel, panel), (eyestay, panel)):
        piece = ImageChops.multiply(canvas.shape(outline), upper)
        canvas.cast(piece, 2, 4, 4, 0.30)
        canvas.paint(piece, color)
        canvas.shade(piece, 12, 0.6)
    for seam in (toe[:4], heel[-3:] + heel[:1], wing[:4]):
        inner: list[Point] = [(p[0] + 12, p[1]) for p in seam]
        stitches = ImageChops.multiply(canvas.dashes(inner, 2.4, 6), upper)
        canvas.paint(stitches, (120, 108, 92), 0.7)


def handbag() -> Image.Image:
    """A small structured leather handbag with brass fittings."""
    leather: Color = (60, 92, 70)
    canvas = _studio()
    canvas.ground(600, 972, 352, 32)
    grip = path("410,560 424,400 500,288 600,262 700,288 776,400 790,560")
    for offset, tone in ((-16, 0.42), (0, 0.06)):
        strap = canvas.line([(p[0], p[1] + offset) for p in grip], 36)
        canvas.paint(strap, mix(leather, (10, 14, 10), tone))
        canvas.shade(strap, 11, 1.4)
    body = canvas.shape(
        _mirrored(path("600,522 360,524 306,548 286,620 256,830 240,930 262,972 330,984 600,986"))
    )
    canvas.paint(body, leather)
    canvas.shade(body, 60, 1.1)
    canvas.shade(body, 16, 0.7)
    for x in (318, 882):
        crease: list[Point] = [(x, 560), (x + (600 - x) * 0.04, 760), (x + (x - 600) * 0.08, 970)]
        canvas.fold(crease, 20, body, opacity=0.20)
    flap = canvas.shape(
        _mirrored(path("600,518 362,520 304,546 290,600 292,680 330,744 450,786 600,796"))
    )
    canvas.cast(ImageChops.multiply(flap, body), 4, 14, 12, 0.5)
    canvas.paint(flap, mix(leather, (255, 255, 255), 0.05))
    canvas.shade(flap, 34, 1.2)
    seam = _mirrored(path("314,600 316,676 346,726 454,764 600,773"))
    canvas.paint(canvas.dashes(seam, 3, 7), mix(leather, (235, 220, 190), 0.55), 0.9)
    bottom = path("268,950 400,962 600,964 800,962 932,950")
    canvas.paint(canvas.dashes(bottom, 3, 7), mix(leather, (235, 220, 190), 0.45), 0.8)
    _brass(canvas)
    return canvas.finish()


def _brass(canvas: Canvas) -> None:
    metal = [
        (0.0, (150, 112, 52)),
        (0.3, (252, 232, 172)),
        (0.6, (206, 164, 88)),
        (1.0, (128, 92, 40)),
    ]
    pieces = [
        canvas.box(552, 738, 648, 830, 16),
        canvas.box(388, 540, 436, 592, 12),
        canvas.box(764, 540, 812, 592, 12),
    ]
    for piece in pieces:
        canvas.cast(piece, 3, 6, 5, 0.5)
        canvas.paint_across(piece, metal)
        canvas.shade(piece, 6, 0.8)
    canvas.paint(canvas.box(590, 766, 610, 804, 10), (92, 64, 26))
