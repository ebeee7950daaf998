"""Calls per minute of teams: a bucket each."""

from __future__ import annotations

import pytest

from libs.common.call_rates import CallRates
from libs.common.errors import ResourceExhaustedError
from tests.fakes.clock import ManualClock


def test_a_minutes_calls_at_once_then_evenly() -> None:
    clock = ManualClock()
    rates = CallRates(lambda _team: 6, clock)
    for _ in range(6):
        rates.take("red")
    with pytest.raises(ResourceExhaustedError) as refused:
        rates.take("red")
    assert refused.value.reason == "TOO_MANY_CALLS"
    assert refused.value.retry_after_seconds == pytest.approx(10.0)
    assert refused.value.quota_subject == "calls per minute"
    rates.take("blue")
    clock.move(9.9)
    with pytest.raises(ResourceExhaustedError):
        rates.take("red")
    clock.move(0.2)
    rates.take("red")
    clock.move(3600)
    for _ in range(6):
        rates.take("red")
    with pytest.raises(ResourceExhaustedError):
        rates.take("red")


def test_a_refused_call_costs_nothing() -> None:
    clock = ManualClock()
    rates = CallRates(lambda _team: 1, clock)
    rates.take("red")
    for _ in range(100):
        clock.move(0.5)
        with pytest.raises(ResourceExhaustedError):
            rates.take("red")
    clock.move(10.5)
    rates.take("red")


def test_limits_may_change_and_end() -> None:
    clock, limits = ManualClock(), {"red": 100}
    rates = CallRates(lambda team: limits.get(team, 0), clock)
    rates.take("red")
    limits["red"] = 1
    rates.take("red")
    with pytest.raises(ResourceExhaustedError):
        rates.take("red")
    limits["red"] = 0
    for _ in range(1000):
        rates.take("red")


def test_memory_is_bounded() -> None:
    rates = CallRates(lambda _team: 10, ManualClock(), max_teams=3)
    for number in range(10):
        rates.take(f"team-{number}")
    assert len(rates) == 3
