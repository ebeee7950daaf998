"""The governor's rules, on a clock of our own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from services.enqueue import governor
from services.enqueue.governor import CallReport, Circuit, ModelState
from tests.fakes.clock import ManualClock

TOO_MANY = CallReport(ok=0, rate_limited=1, failed=0)
FAILED = CallReport(ok=0, rate_limited=0, failed=1)
FINE = CallReport(ok=1, rate_limited=0, failed=0)


class Model:
    """A model, and the time."""

    def __init__(self, limit: int = 0) -> None:
        self.clock = ManualClock()
        self.state: ModelState = governor.new_model("m", self.clock.now())
        if limit:
            self.state = governor.with_limit(self.state, limit, self.clock.now())

    @property
    def now(self) -> datetime:
        return self.clock.now()

    @property
    def circuit(self) -> Circuit:
        return self.state.circuit

    def acquire(self, calls: int = 1) -> governor.Grant:
        self.state, grant = governor.acquire(self.state, calls, self.now)
        return grant

    def report(self, calls: CallReport) -> None:
        self.state = governor.report(self.state, calls, self.now)


def granted(grant: governor.Grant) -> tuple[int, float]:
    """Calls, and milliseconds' exactness of the wait."""
    return grant.calls, round(grant.wait_seconds, 3)


def test_a_model_without_a_limit_takes_any_number() -> None:
    model = Model()
    assert model.state.healthy(model.now)
    assert model.acquire(10).calls == 10
    assert model.state.healthy(model.now)


def test_a_limit_lets_a_burst_through_and_then_its_rate() -> None:
    model = Model(limit=60)
    assert granted(model.acquire(10)) == (5, 1.0)
    assert model.acquire().calls == 0
    made = 0
    for _ in range(600):
        model.clock.move(0.1)
        made += model.acquire(10).calls
    assert made in {59, 60}


def test_a_small_limit_still_lets_one_through() -> None:
    model = Model(limit=2)
    assert model.acquire().calls == 1
    assert granted(model.acquire()) == (0, 30.0)
    model.clock.move(30)
    assert model.acquire().calls == 1


def test_time_that_runs_back_earns_nothing() -> None:
    model = Model(limit=60)
    model.acquire(5)
    state, grant = governor.acquire(model.state, 1, model.now - timedelta(seconds=100))
    assert grant.calls == 0
    assert state.refilled_at == model.now


def test_a_429_halves_the_rate_and_blocks_as_long_as_asked() -> None:
    model = Model(limit=60)
    model.report(replace(TOO_MANY, retry_after_seconds=20.0))
    assert model.acquire() == governor.Grant(0, 20.0)
    assert model.state.rate == pytest.approx(30.0)
    model.clock.move(20)
    assert granted(model.acquire()) == (0, 2.0)
    model.clock.move(25)
    assert model.state.rate < 60
    model.acquire()
    assert model.state.rate == pytest.approx(55.0)
    model.clock.move(3600)
    model.acquire()
    assert model.state.rate == 60.0


def test_the_429s_of_one_burst_slow_down_once() -> None:
    model = Model(limit=600)
    for _ in range(50):
        model.report(TOO_MANY)
    assert model.state.rate == pytest.approx(300.0)
    model.clock.move(governor.SLOWER_ONCE_SECONDS + governor.MIN_BLOCK_SECONDS)
    before = governor.passed(model.state, model.now).rate
    model.report(TOO_MANY)
    assert model.state.rate == pytest.approx(before / 2)


def test_a_block_is_never_shortened() -> None:
    model = Model()
    model.report(replace(TOO_MANY, retry_after_seconds=60.0))
    model.report(TOO_MANY)
    assert model.acquire().wait_seconds == 60.0


def test_the_rate_never_falls_to_nothing() -> None:
    model = Model(limit=2)
    for _ in range(20):
        model.report(TOO_MANY)
        model.clock.move(governor.SLOWER_ONCE_SECONDS)
    assert model.state.rate >= governor.MIN_RATE_PER_MINUTE


def test_without_a_limit_a_429_starts_a_rate_from_what_was_observed() -> None:
    model = Model()
    model.report(replace(TOO_MANY, observed=120))
    assert model.state.rate == pytest.approx(60.0)
    assert model.acquire() == governor.Grant(0, governor.MIN_BLOCK_SECONDS)
    model.clock.move(governor.MIN_BLOCK_SECONDS + 1)
    assert model.acquire().calls == 1
    assert model.acquire(10).calls == 0
    model.clock.move(governor.FORGET_SECONDS)
    assert model.acquire(10).calls == 10
    assert model.state.healthy(model.now)


def test_failures_in_a_row_open_the_circuit_for_growing_times() -> None:
    model = Model()
    for _ in range(governor.FAILURES_TO_OPEN - 1):
        model.report(FAILED)
    model.report(FINE)
    for _ in range(governor.FAILURES_TO_OPEN - 1):
        model.report(FAILED)
    assert model.acquire().calls == 1
    model.report(FAILED)
    waits = []
    for _ in range(8):
        assert model.circuit.value == "OPEN"
        wait = model.acquire().wait_seconds
        waits.append(wait)
        model.clock.move(wait)
        assert model.acquire(5).calls == 1, "one call finds out"
        assert model.acquire().calls == 0
        model.report(FAILED)
    assert waits[:3] == [10.0, 20.0, 40.0]
    assert waits[-1] == governor.MAX_OPEN_SECONDS


@pytest.mark.parametrize("answer", [FINE, TOO_MANY])
def test_a_probe_that_is_answered_closes_the_circuit(answer: CallReport) -> None:
    model = Model()
    model.report(replace(FAILED, failed=40))
    assert model.acquire().wait_seconds == governor.FIRST_OPEN_SECONDS
    model.report(FINE)
    assert model.circuit.value == "OPEN", "an answer from before says nothing"
    model.clock.move(governor.FIRST_OPEN_SECONDS)
    assert model.acquire().calls == 1
    model.report(answer)
    assert model.circuit.value == "CLOSED"
    assert model.state.failures == 0


def test_a_probe_nobody_heard_of_again_is_made_by_another() -> None:
    model = Model()
    model.report(replace(FAILED, failed=5))
    model.clock.move(governor.FIRST_OPEN_SECONDS)
    assert model.acquire().calls == 1
    model.clock.move(governor.PROBE_SECONDS - 1)
    assert model.acquire().calls == 0
    model.clock.move(1)
    assert model.acquire().calls == 1


def test_a_new_limit_holds_at_once() -> None:
    model = Model(limit=600)
    model.state = governor.with_limit(model.state, 12, model.now)
    assert model.acquire(10).calls == 1
    model.state = governor.with_limit(model.state, 0, model.now)
    assert model.acquire(10).calls == 10
