"""Working at a delivery while a part is away: tried again for minutes, and not for ever."""

from __future__ import annotations

import pytest

from libs.common.broker_handling import PATIENCE_SECONDS, Patience
from libs.common.errors import (
    AbortedError,
    ContentshopError,
    DeadlineExceededError,
    InternalError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from libs.common.ids import SystemIds
from tests.fakes.clock import ManualClock


class Work:
    """Fails by these errors, one after the other; the last again and again where `forever`."""

    def __init__(self, *errors: ContentshopError, forever: bool = False) -> None:
        self.errors = list(errors)
        self.forever = forever
        self.tries = 0

    async def __call__(self) -> None:
        self.tries += 1
        if self.errors:
            raise self.errors[0] if self.forever else self.errors.pop(0)


async def test_what_is_away_busy_or_full_is_waited_for() -> None:
    full = ResourceExhaustedError("full", reason="STORAGE_FULL", quota_subject="database storage")
    late, unknown = DeadlineExceededError("late"), UnauthenticatedError("who are you")
    work = Work(UnavailableError("away"), late, unknown, AbortedError("met another"), full)
    clock = ManualClock()
    await Patience(clock, SystemIds())(work, job_id=1)
    assert work.tries == 6
    assert 0 < clock.monotonic() < 7


async def test_not_for_ever() -> None:
    work, clock = Work(UnavailableError("away"), forever=True), ManualClock()
    with pytest.raises(UnavailableError):
        await Patience(clock, SystemIds())(work, job_id=1)
    assert PATIENCE_SECONDS < clock.monotonic() < PATIENCE_SECONDS + 10
    assert work.tries < PATIENCE_SECONDS


async def test_what_does_not_pass_is_raised_at_once() -> None:
    work = Work(InternalError("broken"))
    with pytest.raises(InternalError):
        await Patience(ManualClock(), SystemIds())(work, job_id=1)
    assert work.tries == 1
