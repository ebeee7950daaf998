"""What all workflows share: the shape of one, and the reading of its input. Stdlib only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.checks import Violations

ASPECT_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Workflow:
    """One workflow.

    Attributes:
        schema_key: its name and version.
        job_type: image_generation or image_edit.
        parse: (raw input, violations) → validated input, defaults filled in; wrong fields are
            added to the violations at `input.<key>`.
        prompt: (validated input, roles of the references in order, moodboard's words) → the text.
        image_prompt: (prompt, index from 1, count) → the text for one image.
    """

    schema_key: str
    job_type: str
    parse: Callable[[Values, Violations], dict[str, Any]]
    prompt: Callable[[Values, Sequence[str], str], str]
    image_prompt: Callable[[str, int, int], str]


def refuse_unknown(raw: Values, known: Sequence[str], check: Violations) -> None:
    """Names every key of the input that the workflow does not have."""
    for key in sorted(set(raw) - set(known)):
        shown = key if key.isidentifier() and len(key) <= 40 else "?"  # noqa: PLR2004 - a name's length
        check.add(f"input.{shown}", f"is unknown; known: {', '.join(known)}", "UNKNOWN_FIELD")


def read_text(
    raw: Values, key: str, check: Violations, *, max_chars: int, required: bool = False
) -> str:
    """A text of the input, stripped; empty when absent."""
    value = raw.get(key, "")
    if value is None:
        value = ""
    if not isinstance(value, str):
        check.add(f"input.{key}", "must be a text")
        return ""
    check.text(value, max_chars, f"input.{key}", required=required)
    return value.strip()


def read_choice(
    raw: Values, key: str, choices: Sequence[str], check: Violations, *, default: str
) -> str:
    """One of the choices, or the default when absent or empty."""
    value = raw.get(key) or default
    if value != default and (not isinstance(value, str) or value not in choices):
        check.add(f"input.{key}", f"must be one of {', '.join(choices)}")
        return default
    return str(value)


def numbered(roles: Sequence[str], role: str) -> str:
    """How the prompt speaks of the references of a role: `reference 2` or `references 1 to 3`."""
    positions = [position for position, r in enumerate(roles, start=1) if r == role]
    if len(positions) == 1:
        return f"reference {positions[0]}"
    return f"references {positions[0]} to {positions[-1]}"
