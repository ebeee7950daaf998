"""image.edit.v1: a change to one image; `FIELDS` is its input.

References, in this order: the base image, then the optional reference image.
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

FIELDS = (
    InputField("instruction", "What is to be changed.", required=True, max_chars=2000),
    InputField("aspect_ratio", "Width to height; absent: the image's own.", choices=ASPECT_RATIOS),
)


def prompt(values: Values, roles: Sequence[str], moodboard_style: str) -> str:
    """The text all images of the job share."""
    lines = [
        f"Edit the picture of {numbered(roles, 'base')} and change only what is asked for.",
        f"The team asks: {one_line(values['instruction'])}",
    ]
    if "reference" in roles:
        lines.append(f"Look to {numbered(roles, 'reference')} for how it should turn out.")
    if moodboard_style:
        lines.append(f"The style: {one_line(moodboard_style)}")
    lines.append("Keep everything else as it is. No text, no watermark, no border.")
    return "\n".join(lines)


def image_prompt(text: str, index: int, count: int) -> str:
    """The job's prompt, and that alternatives are wanted where there are several."""
    if count == 1:
        return text
    return f"{text}\nThis is alternative {index} of {count}: solve it in your own way."


WORKFLOW = Workflow(
    "image.edit.v1",
    "image_edit",
    "A change to one image, in words, with a second image to look to where wanted.",
    FIELDS,
    prompt,
    image_prompt,
)
