"""Where things stand in an offline picture: a layout per variation, spots for its subjects."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Spot:
    """A place for one subject, in parts of the picture.

    Attributes:
        x: the subject's middle.
        base: where it stands; its middle where it lies flat.
        width, height: the box it is fitted into.
        turn: degrees, counter-clockwise.
        quarter: seen from three quarters: the far side a little smaller.
        flip: mirrored.
        flat: lies on the ground or hangs before the wall, rather than stands.
        cast: throws a long shadow to the right: low sun.
        distance: 0 in focus; further back the softer.
    """

    x: float
    base: float
    width: float
    height: float
    turn: float = 0.0
    quarter: bool = False
    flip: bool = False
    flat: bool = False
    cast: bool = False
    distance: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to compose a picture: a scene of `offline_scene` and its main spot.

    Attributes:
        single: shows one product only, whatever was given (a close-up).
        echo: a lone product is shown twice, the second smaller and behind.
        mirrored: all but the products themselves, which would no longer be what they are.
    """

    scene: str
    spot: Spot
    single: bool = False
    echo: bool = False
    mirrored: bool = False


LAYOUTS: tuple[Layout, ...] = (
    Layout("halo", Spot(0.50, 0.84, 0.62, 0.60)),
    Layout("plinth", Spot(0.50, 0.694, 0.46, 0.50)),
    Layout("window", Spot(0.40, 0.85, 0.58, 0.60, quarter=True, cast=True)),
    Layout("arch", Spot(0.50, 0.772, 0.44, 0.50)),
    Layout("close", Spot(0.56, 0.58, 1.02, 0.98, turn=7, flat=True), single=True),
    Layout("sweep", Spot(0.38, 0.87, 0.50, 0.54), echo=True),
    Layout("steps", Spot(0.56, 0.643, 0.46, 0.48)),
    Layout("flatlay", Spot(0.50, 0.50, 0.66, 0.66, turn=-9, flat=True)),
)

_ON_A_PHOTO: tuple[Layout, ...] = (
    Layout("photo", Spot(0.50, 0.88, 0.60, 0.58)),
    Layout("photo_table", Spot(0.38, 0.87, 0.52, 0.56, quarter=True)),
    Layout("photo_plinth", Spot(0.62, 0.720, 0.46, 0.48)),
    Layout("photo", Spot(0.36, 0.90, 0.48, 0.52), echo=True),
    Layout("photo_close", Spot(0.50, 1.02, 0.84, 0.82), single=True),
)

_OPEN_FLOOR = ("halo", "window", "plinth", "arch", "sweep", "steps")


def layout_for(variation: int, rng: random.Random, *, on_photo: bool, open_floor: bool) -> Layout:
    """The layout of a variation (0-based); all are used before one comes again, mirrored.

    `open_floor` leaves out those without a place to stand (close-ups, flat lays).
    `rng` is seeded by the job's inputs alone, so that siblings draw the same order.
    """
    if on_photo:
        first = rng.randrange(len(_ON_A_PHOTO))
        choices = [*_ON_A_PHOTO[first:], *_ON_A_PHOTO[:first]]
    else:
        choices = [each for each in LAYOUTS if not open_floor or each.scene in _OPEN_FLOOR]
        rng.shuffle(choices)
    rounds, place = divmod(variation, len(choices))
    return replace(choices[place], mirrored=rounds % 2 == 1)


def product_spots(layout: Layout, count: int) -> list[Spot]:
    """A spot per product shown, in the products' order; paint those with more distance first."""
    main = layout.spot
    if layout.single or count <= 1:
        if not layout.echo:
            return [main]
        behind = replace(
            main, x=main.x + 0.33, base=main.base - 0.075, width=main.width * 0.80,
            height=main.height * 0.78, flip=True, distance=1.0,
        )  # fmt: skip
        return [main, behind]
    across = 0.90 if main.flat or layout.scene in _DEEP else 0.82  # of a block 0.94 wide
    step = across / count
    spots = []
    for place in range(count):
        is_back = place % 2 == 1
        spots.append(
            replace(
                main,
                x=0.5 - across / 2 + step * (place + 0.5),
                base=main.base - (0.045 if is_back and layout.scene in _DEEP else 0.0),
                width=step * 1.16,
                height=main.height * 0.98,
                turn=main.turn if not is_back else -main.turn,
                distance=0.35 if is_back else 0.0,
            )
        )
    return spots


_DEEP = frozenset(("halo", "sweep", "window", "photo"))
"""Scenes with an open floor, where products may stand one behind the other."""


def beside_model(variation: int, aspect: float) -> tuple[Spot, float, float]:
    """The model's spot, and the middle and scale of the zone that is left for the products.

    `aspect` is width by height; in wide pictures the two stay close together.
    """
    side = -1 if variation % 2 == 0 else 1
    apart = min(1.0, 1.1 / aspect)
    model = Spot(0.5 + side * 0.22 * apart, 0.965, 0.52, 0.88)
    return model, 0.5 - side * 0.17 * apart, 0.66


def mirrored(spot: Spot) -> Spot:
    """The spot in the picture's mirror image, a step further back; light comes from the left."""
    return replace(
        spot, x=1 - spot.x, width=spot.width * 0.84, height=spot.height * 0.84,
        turn=-spot.turn, cast=False,
    )  # fmt: skip


def into_zone(spots: Sequence[Spot], middle: float, scale: float) -> list[Spot]:
    """The spots, drawn together around `middle`."""
    return [
        replace(
            spot,
            x=middle + (spot.x - 0.5) * scale,
            width=spot.width * (scale + 0.08),
            height=spot.height * (scale + 0.08),
        )
        for spot in spots
    ]
