"""Clocks that move when they are told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from libs.common.clock import SystemClock


class ManualClock:
    """Wall and monotonic time in step, from noon of the first of January 2026."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def move(self, seconds: float) -> None:
        """Lets so much time pass."""
        self._seconds += seconds

    def now(self) -> datetime:
        """The wall time."""
        return datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        """Passes at once."""
        self.move(seconds)


class SkippingClock(SystemClock):
    """The machine's clocks; the monotonic one runs ahead by what was skipped."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def skip(self, seconds: float) -> None:
        """So much time is over at once, for whoever measures it; who sleeps sleeps on."""
        self._skipped += seconds

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return super().monotonic() + self._skipped


class HandClock(SystemClock):
    """The machine's wall clock; what is measured moves by hand: no stall looks like an outage."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def move(self, seconds: float) -> None:
        """Lets so much time pass, for whoever measures it."""
        self._seconds += seconds

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._seconds
