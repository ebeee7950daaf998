"""Repeating calls that may be repeated, while the other side is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from libs.common.backoff import Backoff
from libs.common.clock import Clock
from libs.common.errors import TRANSIENT, ContentshopError
from libs.common.ids import Ids
from services.worker.domain import Lease

log = structlog.get_logger()
T = TypeVar("T")


class Patience:
    """Repeats a call with jittered back-off while it fails in a way that may pass.

    Args:
        limit_seconds: how long at most, from the first try.
        clock: for waits.
        ids: for jitter.
        backoff: between tries.
    """

    def __init__(
        self, *, limit_seconds: float, clock: Clock, ids: Ids, backoff: Backoff | None = None
    ) -> None:
        self._limit = limit_seconds
        self._clock = clock
        self._ids = ids
        self._backoff = backoff or Backoff(first_seconds=0.1, max_seconds=3.0)

    async def ask(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        lease: Lease,
        what: str,
        limit_seconds: float | None = None,
    ) -> T:
        """The call's answer, by as many tries as it takes.

        Gives up when the lease is over (it moves on while the keeper renews it) or the limit is
        reached, and raises the last error; any other error is raised at once.
        """
        limit = self._limit if limit_seconds is None else limit_seconds
        give_up_at = self._clock.monotonic() + limit
        failures = 0
        while True:
            try:
                return await call()
            except TRANSIENT as error:
                failures += 1
                wait = self._wait(error, failures)
                if self._clock.monotonic() + wait >= min(give_up_at, lease.until):
                    raise
                log.info("call.repeated", call=what, failures=failures, error=type(error).__name__)
            await self._clock.sleep(wait)

    def _wait(self, error: ContentshopError, failures: int) -> float:
        wait = self._backoff.wait(failures, self._ids)
        # What the server asks for is the same for all callers: the jitter goes on top.
        return wait + min(error.retry_after_seconds or 0.0, self._backoff.max_seconds)
