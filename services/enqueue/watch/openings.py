"""Turns to read for watches that open: few at a time, however many come together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.common.errors import UnavailableError

WAIT_SECONDS = 60.0


class Openings:
    """After a restart all watchers come back at once. They wait in line here and not for the pool.

    There each would be turned away after two seconds, and the calls of others with them.

    Args:
        at_once: how many read together; fewer than the pool has connections.
        wait_seconds: how long a watch waits for its turn before UNAVAILABLE.
    """

    def __init__(self, at_once: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._wait = wait_seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One read; UnavailableError when no turn comes."""
        try:
            async with asyncio.timeout(self._wait):
                await self._places.acquire()
        except TimeoutError:
            raise UnavailableError("too many watches open", reason="DATABASE_BUSY") from None
        try:
            yield
        finally:
            self._places.release()
