"""Waiting for something to become true, with a deadline instead of a sleep."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

PATIENCE_SECONDS = 30.0  # a busy machine stands still for seconds
_FIRST_WAIT_SECONDS = 0.005
_LONGEST_WAIT_SECONDS = 0.25


@overload
async def eventually(
    check: Callable[[], Awaitable[T]], *, timeout_seconds: float = PATIENCE_SECONDS, what: str = ""
) -> T: ...


@overload
async def eventually(
    check: Callable[[], T], *, timeout_seconds: float = PATIENCE_SECONDS, what: str = ""
) -> T: ...


async def eventually(
    check: Callable[[], T | Awaitable[T]],
    *,
    timeout_seconds: float = PATIENCE_SECONDS,
    what: str = "",
) -> T:
    """The first truthy value of check, which may raise AssertionError meanwhile.

    Raises:
        AssertionError: none in time; shows the last value or assertion.
    """
    deadline = time.monotonic() + timeout_seconds
    wait = _FIRST_WAIT_SECONDS
    last: object = None
    while True:
        try:
            value = check()
            result: T = await value if inspect.isawaitable(value) else value
            if result:
                return result
            last = result
        except AssertionError as error:
            last = error
        left = deadline - time.monotonic()
        if left <= 0:
            message = f"not within {timeout_seconds} s: {what or 'check'}; last: {last!r}"
            raise AssertionError(message)
        await asyncio.sleep(min(wait, left))
        wait = min(wait * 1.5, _LONGEST_WAIT_SECONDS)
