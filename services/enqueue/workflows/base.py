"""What all workflows share: the shape of one, and the reading of its input. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.checks import Violations

ASPECT_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
# An unknown key is said back where it looks like one of ours: it is a slip of the pen then.
_SHOWN_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InputField:
    """One key of a workflow's input; reading, docs and ListWorkflows all go by it.

    Attributes:
        name: the key.
        description: what it means, for a person.
        required: it must be given, and not be blank.
        choices: the texts it may be; none means free text.
        default: what an absent one of choices means; free text is then empty.
        max_chars: for free text.
    """

    name: str
    description: str
    required: bool = False
    choices: tuple[str, ...] = ()
    default: str = ""
    max_chars: int = 0

    def read(self, raw: Values, check: Violations) -> str:
        """The field's value; a wrong one is added to the violations at `input.<name>`."""
        return self._choice(raw, check) if self.choices else self._text(raw, check)

    def _text(self, raw: Values, check: Violations) -> str:
        value = raw.get(self.name, "")
        if value is None:
            value = ""
        if not isinstance(value, str):
            check.add(f"input.{self.name}", "must be a text")
            return ""
        check.text(value, self.max_chars, f"input.{self.name}", required=self.required)
        return value.strip()

    def _choice(self, raw: Values, check: Violations) -> str:
        value = raw.get(self.name) or self.default
        if value != self.default and (not isinstance(value, str) or value not in self.choices):
            check.add(f"input.{self.name}", f"must be one of {', '.join(self.choices)}")
            return self.default
        return str(value)


@dataclass(frozen=True, slots=True)
class Workflow:
    """One workflow.

    Attributes:
        schema_key: its name and version.
        job_type: image_generation or image_edit.
        description: what it makes, for a person.
        fields: its input; unknown keys are refused.
        prompt: (validated input, roles of the references in order, moodboard's words) → the text.
        image_prompt: (prompt, index from 1, count) → the text for one image.
    """

    schema_key: str
    job_type: str
    description: str
    fields: tuple[InputField, ...]
    prompt: Callable[[Values, Sequence[str], str], str]
    image_prompt: Callable[[str, int, int], str]

    def parse(self, raw: Values, check: Violations) -> dict[str, Any]:
        """The validated input, defaults filled in; every wrong or unknown key is a violation."""
        known = [field.name for field in self.fields]
        for key in sorted(set(raw) - set(known)):
            shown = key if _SHOWN_KEY.fullmatch(key) else "?"
            check.add(f"input.{shown}", f"is unknown; known: {', '.join(known)}", "UNKNOWN_FIELD")
        return {field.name: field.read(raw, check) for field in self.fields}


def one_line(text: str) -> str:
    """A team's words as one line of the prompt, so that none of them looks like a line of ours."""
    return " ".join(text.split())


def numbered(roles: Sequence[str], role: str) -> str:
    """How the prompt speaks of the references of a role: `reference 2` or `references 1 to 3`."""
    positions = [position for position, r in enumerate(roles, start=1) if r == role]
    if len(positions) == 1:
        return f"reference {positions[0]}"
    return f"references {positions[0]} to {positions[-1]}"
