"""A clock that moves when it is told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


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
