"""apparel.catalog.v1: catalogue shots of 1 to 4 products; `FIELDS` is its input.

References, in this order: products, then the model, the background, the moodboard's wanted
pictures, and its unwanted ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.enqueue.workflows.base import (
    ASPECT_RATIOS,
    InputField,
    Values,
    Workflow,
    numbered,
    one_line,
)

PURPOSES = {
    "catalog": "a clean catalogue picture for a web shop",
    "lifestyle": "a lifestyle picture that shows the product in use",
    "social": "a striking picture for social media",
    "hero": "a wide hero picture for the top of a page",
}
FIELDS = (
    InputField("purpose", "What the picture is for.", choices=tuple(PURPOSES), default="catalog"),
    InputField(
        "aspect_ratio",
        "Width to height; absent: the generator's own choice.",
        choices=ASPECT_RATIOS,
    ),
    InputField("custom_instructions", "What the team asks for, in its own words.", max_chars=2000),
    InputField("style_appendix", "Words about the style, added to the prompt.", max_chars=1000),
)

_SHOTS = (
    "straight from the front, centred",
    "at a three-quarter angle",
    "closer, with the material and details in view",
    "from slightly above, with more room around the product",
    "from a low angle, with a long soft shadow",
)


def prompt(values: Values, roles: Sequence[str], moodboard_style: str) -> str:
    """The text all images of the job share."""
    lines = [
        f"Make {PURPOSES[values['purpose']]}.",
        (
            f"Show exactly the product of {numbered(roles, 'product')}: same shape, colours, "
            "material, seams, prints and logos; change nothing about it."
        ),
    ]
    if "model" in roles:
        lines.append(
            f"It is worn or held by the person of {numbered(roles, 'model')}; keep their "
            "face and build."
        )
    if "background" in roles:
        lines.append(
            f"Set it in the scene of {numbered(roles, 'background')}, with matching light "
            "and perspective."
        )
    else:
        lines.append("Set it on a plain, softly lit studio background.")
    if "moodboard" in roles:
        lines.append(
            f"Take mood, light and palette, and no objects, from {numbered(roles, 'moodboard')}."
        )
    if "avoid" in roles:
        lines.append(f"Keep away from the look of {numbered(roles, 'avoid')}.")
    style = [one_line(text) for text in (values["style_appendix"], moodboard_style) if text]
    lines += [f"The style: {text}" for text in style]
    if values["custom_instructions"]:
        lines.append(f"The team asks: {one_line(values['custom_instructions'])}")
    lines.append("No text, no watermark, no border.")
    return "\n".join(lines)


def image_prompt(text: str, index: int, count: int) -> str:
    """The job's prompt and this image's own shot."""
    if count == 1:
        return text
    shot = _SHOTS[(index - 1) % len(_SHOTS)]
    return f"{text}\nThis is picture {index} of {count}: show it {shot}."


WORKFLOW = Workflow(
    "apparel.catalog.v1",
    "image_generation",
    "Catalogue shots of 1 to 4 products, with a model, a background and a mood where wanted.",
    FIELDS,
    prompt,
    image_prompt,
)
