"""Time, passed in so that tests and the simulation can own it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall clock, monotonic clock and sleep in one, so that they always agree."""

    def now(self) -> datetime:
        """The wall time, aware, in UTC. For records and people, never for measuring."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow. For timeouts and durations within one process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; cancelled like asyncio.sleep."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The wall time, aware, in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one home of the wall clock

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
