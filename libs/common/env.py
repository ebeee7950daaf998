"""The environment, read once into a frozen dataclass; all mistakes reported together.

A settings class is a frozen dataclass whose fields are made by `setting(...)`. Every variable may
also come from a file: `NAME_FILE=/run/secrets/name` stands for `NAME=<content of the file>`.
"""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_MISSING = object()
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class SettingsError(Exception):
    """The environment is wrong; `problems` has one line per mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("wrong settings:\n" + "\n".join(f"  {p}" for p in problems))
        self.problems = problems


def process_environ() -> Mapping[str, str]:
    """A copy of this process's environment; the only place that reads it."""
    return dict(os.environ)  # noqa: TID251 - the one home of the environment


def setting(
    env: str,
    text: str,
    default: Any = _MISSING,
    *,
    secret: bool = False,
    at_least: float | None = None,
) -> Any:
    """A field of a settings dataclass: its variable, what it means, its default and its floor.

    A secret is left out of the dataclass's repr. A field without a default is required.
    """
    metadata = {"env": env, "text": text, "secret": secret, "at_least": at_least}
    if default is _MISSING:
        return dataclasses.field(metadata=metadata, repr=not secret)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def load(cls: type[T], environ: Mapping[str, str]) -> T:
    """A `cls` from the environment; raises SettingsError naming every mistake at once."""
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass by contract
        env = field.metadata["env"]
        try:
            raw = _raw(env, environ)
            if raw is None:
                if field.default is dataclasses.MISSING:
                    problems.append(f"{env} is not set: {field.metadata['text']}")
                continue
            value = _PARSERS[hints[field.name]](raw)
            floor = field.metadata["at_least"]
            if floor is not None and value < floor:
                problems.append(f"{env} must be at least {floor}")
            values[field.name] = value
        except ValueError as error:
            problems.append(f"{env}: {error}")
    if problems:
        raise SettingsError(problems)
    return cls(**values)


def describe(cls: type[Any]) -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting, for help texts and .env.example."""
    return [
        (field.metadata["env"], _as_raw(field.default), field.metadata["text"])
        for field in dataclasses.fields(cls)
    ]


def _as_raw(default: Any) -> str:
    """A default as the environment would have it; empty where there is none."""
    if default is dataclasses.MISSING:
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _raw(env: str, environ: Mapping[str, str]) -> str | None:
    if env in environ:
        return environ[env]
    path = environ.get(f"{env}_FILE")
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"cannot read the file that {env}_FILE names") from error


def _bool(raw: str) -> bool:
    word = raw.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("not a yes or no")


def _int(raw: str) -> int:
    try:
        return int(raw)
    except ValueError:
        raise ValueError("not a whole number") from None


def _float(raw: str) -> float:
    try:
        value = float(raw)
    except ValueError:
        raise ValueError("not a number") from None
    if not math.isfinite(value):  # NaN would pass every floor
        raise ValueError("not a number")
    return value


def _words(raw: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in raw.split(",") if word.strip())


_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: _int,
    float: _float,
    bool: _bool,
    tuple[str, ...]: _words,
}
