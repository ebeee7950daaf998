"""What the Gemini image models take; standard library only.

Source: the provider's model pages for `gemini-3.1-flash-image` and `gemini-3-pro-image`. The
doors of enqueue keep requests within it; the generator itself refuses too many references, and
passes on the rest as it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_REFERENCES = 14
"""Of every model known; one that is not known is held to it as well."""

_COMMON_ASPECT_RATIOS = frozenset(
    {"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"}
)


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What one model takes.

    Attributes:
        aspect_ratios: `W:H` words the model accepts.
        image_sizes: the words for the longer side, about 512, 1024, 2048 and 4096 pixels.
        max_references: images per prompt.
        max_reference_bytes: size of one inline image, in bytes.
        reference_types: content types of inline images.
    """

    aspect_ratios: frozenset[str]
    image_sizes: frozenset[str]
    max_references: int = MAX_REFERENCES
    max_reference_bytes: int = 7 * 1024 * 1024
    reference_types: frozenset[str] = frozenset({"image/png", "image/jpeg", "image/webp"})


GEMINI_MODELS: dict[str, ModelLimits] = {
    "gemini-3.1-flash-image": ModelLimits(
        aspect_ratios=_COMMON_ASPECT_RATIOS | {"1:4", "4:1", "1:8", "8:1"},
        image_sizes=frozenset({"512", "1K", "2K", "4K"}),
    ),
    "gemini-3-pro-image": ModelLimits(
        aspect_ratios=_COMMON_ASPECT_RATIOS,
        image_sizes=frozenset({"1K", "2K", "4K"}),
    ),
}


def max_references(model: str) -> int:
    """How many images a prompt of this model may have."""
    known = GEMINI_MODELS.get(model)
    return known.max_references if known else MAX_REFERENCES
