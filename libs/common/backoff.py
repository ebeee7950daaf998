"""How long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.ids import Ids


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter.

    Attributes:
        first_seconds: the ceiling of the first wait.
        max_seconds: the ceiling of any wait.
        factor: growth of the ceiling from one wait to the next.
    """

    first_seconds: float = 0.2
    max_seconds: float = 10.0
    factor: float = 2.0

    def ceiling(self, failures: int) -> float:
        """The longest wait, in seconds, after this many failures (1, 2, …)."""
        exponent = min(max(failures, 1) - 1, 64)  # 2**64 seconds is past any ceiling
        return min(self.max_seconds, self.first_seconds * self.factor**exponent)

    def wait(self, failures: int, ids: Ids) -> float:
        """Seconds to wait after this many failures; never below half the ceiling."""
        ceiling = self.ceiling(failures)
        return ids.uniform(ceiling / 2, ceiling)
