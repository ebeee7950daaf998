"""Randomness, passed in so that tests and the simulation can own it."""

from __future__ import annotations

import random
import secrets
from typing import Protocol


class Ids(Protocol):
    """A source of unguessable names and of jitter."""

    def token(self) -> str:
        """A new unguessable name: 32 lower-case hex digits."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high], for jitter."""
        ...


class SystemIds:
    """The operating system's randomness."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def token(self) -> str:
        """A new unguessable name: 32 lower-case hex digits."""
        return secrets.token_hex(16)

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high]."""
        return self._random.uniform(low, high)
