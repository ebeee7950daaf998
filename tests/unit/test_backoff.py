"""Back-off: it grows, it is bounded, and it is spread."""

from __future__ import annotations

from libs.common.backoff import Backoff
from libs.common.ids import SystemIds


class Edges(SystemIds):
    """Gives one end of what is asked for."""

    def __init__(self, *, high: bool) -> None:
        self._high = high

    def uniform(self, low: float, high: float) -> float:
        return high if self._high else low


def test_the_ceiling_doubles_up_to_its_limit() -> None:
    backoff = Backoff(first_seconds=0.5, max_seconds=5.0)
    assert [backoff.ceiling(n) for n in (0, 1, 2, 3, 4, 5, 6)] == [0.5, 0.5, 1, 2, 4, 5, 5]
    assert backoff.ceiling(10**9) == 5.0


def test_waits_lie_in_the_upper_half() -> None:
    backoff = Backoff(first_seconds=1.0, max_seconds=8.0)
    assert backoff.wait(3, Edges(high=False)) == 2.0
    assert backoff.wait(3, Edges(high=True)) == 4.0
    waits = {backoff.wait(4, SystemIds()) for _ in range(50)}
    assert len(waits) > 40
    assert all(4.0 <= wait <= 8.0 for wait in waits)
