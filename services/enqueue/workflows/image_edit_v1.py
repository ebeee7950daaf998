"""image.edit.v1: a change to one image.

Input: `instruction` (required, ≤ 2,000 characters), `aspect_ratio` (absent: the image's own).
References, in this order: the base image, then the optional reference image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from libs.common.checks import Violations
from services.enqueue.workflows.base import (
    ASPECT_RATIOS,
    Values,
    Workflow,
    numbered,
    read_choice,
    read_text,
    refuse_unknown,
)

KEYS = ("instruction", "aspect_ratio")


def parse(raw: Values, check: Violations) -> dict[str, Any]:
    """The validated input with its defaults."""
    refuse_unknown(raw, KEYS, check)
    return {
        "instruction": read_text(raw, "instruction", check, max_chars=2000, required=True),
        "aspect_ratio": read_choice(raw, "aspect_ratio", ASPECT_RATIOS, check, default=""),
    }


def prompt(values: Values, roles: Sequence[str], moodboard_style: str) -> str:
    """The text all images of the job share."""
    lines = [
        f"Edit the picture of {numbered(roles, 'base')} and change only what is asked for.",
        f"The team asks: {values['instruction']}",
    ]
    if "reference" in roles:
        lines.append(f"Look to {numbered(roles, 'reference')} for how it should turn out.")
    if moodboard_style:
        lines.append(moodboard_style)
    lines.append("Keep everything else as it is. No text, no watermark, no border.")
    return "\n".join(lines)


def image_prompt(text: str, index: int, count: int) -> str:
    """The job's prompt, and that alternatives are wanted where there are several."""
    if count == 1:
        return text
    return f"{text}\nThis is alternative {index} of {count}: solve it in your own way."


WORKFLOW = Workflow("image.edit.v1", "image_edit", parse, prompt, image_prompt)
