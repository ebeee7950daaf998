"""Checking requests: every wrong field is found and named before the first error is raised."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from libs.common.errors import FieldViolation, InvalidArgumentError

MAX_ID = 2**63 - 1
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")


class Violations:
    """Collects wrong fields; raise_if_any ends the checking."""

    def __init__(self) -> None:
        self.found: list[FieldViolation] = []

    def add(self, field: str, description: str, reason: str = "INVALID_VALUE") -> None:
        """One more wrong field."""
        self.found.append(FieldViolation(field, description, reason))

    def check(self, ok: bool, field: str, description: str) -> bool:  # noqa: FBT001 - reads as a sentence
        """Adds the field unless ok; returns ok."""
        if not ok:
            self.add(field, description)
        return ok

    def within(self, value: int, low: int, high: int, field: str) -> bool:
        """Adds the field unless low <= value <= high."""
        return self.check(low <= value <= high, field, f"must be from {low} to {high}")

    def id(self, value: int, field: str) -> bool:
        """Adds the field unless it is an id (from 1 up)."""
        return self.check(1 <= value <= MAX_ID, field, "must be an id, from 1 up")

    def text(self, value: str, max_chars: int, field: str, *, required: bool = False) -> bool:
        """Adds the field when it is too long, empty though required, or has control characters."""
        if required and not value.strip():
            return self.check(False, field, "must not be empty")
        if len(value) > max_chars:
            return self.check(False, field, f"must be at most {max_chars} characters")
        clean = not any((ch < " " and ch not in "\n\t") or "\x7f" <= ch <= "\x9f" for ch in value)
        return self.check(clean, field, "must not contain control characters")

    def one_of(self, value: int, allowed: Iterable[int], field: str) -> bool:
        """Adds the field unless the enum value is known."""
        return self.check(value in set(allowed), field, "is not a value this server knows")

    def request_id(self, value: str) -> bool:
        """Adds request_id unless it is empty or 1 to 64 printable ASCII characters."""
        ok = not value or _REQUEST_ID.fullmatch(value) is not None
        return self.check(ok, "request_id", "must be 1 to 64 printable ASCII characters")

    def raise_if_any(self, reason: str = "INVALID_ARGUMENT") -> None:
        """Raises InvalidArgumentError naming every wrong field, if there is one."""
        if self.found:
            count = len(self.found)
            raise InvalidArgumentError(
                f"{self.found[0].field} {self.found[0].description}"
                if count == 1
                else f"{count} fields are wrong",
                reason=reason,
                violations=self.found,
            )


@contextmanager
def checking() -> Iterator[Violations]:
    """Violations that are raised, all together, at the end of the block."""
    violations = Violations()
    yield violations
    violations.raise_if_any()
