"""Strategy `template`: fixed words for light, lens and composition. Stdlib only.

The same request gets the same words. What a reference image or the team decides is left alone:
with a background there are no words for light, since the scene has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.enqueue.workflows.base import Values


@dataclass(frozen=True, slots=True)
class Direction:
    """A photographer's three decisions, one clause each."""

    light: str
    lens: str
    composition: str


CATALOG: Mapping[str, Direction] = {
    "catalog": Direction(
        "even, soft light from both sides with a faint shadow under the product",
        "an 85 mm lens at f/11, sharp from front to back",
        "the product fills about four fifths of the frame, with clear space around it",
    ),
    "lifestyle": Direction(
        "natural daylight through a window, warm and directional",
        "a 50 mm lens at f/2.8, the surroundings gently out of focus",
        "the product in use on a third of the frame, with room in the direction of view",
    ),
    "social": Direction(
        "bright, contrasty light with one crisp shadow and vivid colours",
        "a 35 mm lens close to the product, for depth",
        "one strong diagonal, the product large and readable at thumbnail size",
    ),
    "hero": Direction(
        "low, golden light from behind with a soft fill from the front",
        "a 70 mm lens at f/4, the background melting away",
        "the product to one side, with calm empty space for a headline on the other",
    ),
}
EDIT = Direction(
    "keep the light's direction, colour and hardness, with shadows to match what changes",
    "keep perspective, focal length and depth of field",
    "keep the crop and where everything stands",
)
_NONE = Direction("", "", "")


def template_words(schema_key: str, values: Values, roles: Sequence[str]) -> str:
    """One line for the end of the prompt; empty for a workflow that has no words.

    Args:
        schema_key: the workflow.
        values: its validated input.
        roles: of the references.
    """
    direction = _NONE
    if schema_key == "apparel.catalog.v1":
        direction = CATALOG[values["purpose"]]
    elif schema_key == "image.edit.v1":
        direction = EDIT
    said = [
        ("Light", "" if "background" in roles else direction.light),
        ("Lens", direction.lens),
        ("Composition", direction.composition),
    ]
    return " ".join(f"{what}: {words}." for what, words in said if words)
