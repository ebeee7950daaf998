"""The worker's rules: hand-backs, waits, patience."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.backoff import Backoff
from libs.common.clock import SystemClock
from libs.common.errors import InvalidArgumentError, UnavailableError
from libs.common.ids import SystemIds
from libs.common.outcomes import POLICIES, Outcome
from services.worker.circuit import GeneratorCircuit
from services.worker.domain import Claim, Lease, merged, wait_before_next_try
from services.worker.gateways.patience import Patience
from services.worker.generation import GenerationError


class StillClock(SystemClock):
    """Time that only sleeping moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


def a_claim(*, may_hand_back: bool) -> Claim:
    return Claim(
        lease=Lease(1, 1, 0.0),
        attempt=1,
        team="acme",
        lane="image_generation.fast",
        quality="fast",
        format="png",
        aspect_ratio="",
        count=1,
        inputs=(),
        images=(),
        may_hand_back=may_hand_back,
    )


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_faults_that_burn_nothing_are_handed_back_without_attempts(outcome: Outcome) -> None:
    policy = POLICIES[outcome]
    assert a_claim(may_hand_back=True).hands_back(outcome) == policy.hands_back
    last = a_claim(may_hand_back=False).hands_back(outcome)
    assert last == (policy.hands_back and not policy.burns_attempt)


@pytest.mark.parametrize(
    ("outcome", "asked", "tries", "hands_back", "wait"),
    [
        (Outcome.OVERLOADED, None, 1, True, 0.5),
        (Outcome.OVERLOADED, 4.0, 2, True, 4.0),
        (Outcome.OVERLOADED, 4.0, 3, True, None),
        (Outcome.OVERLOADED, 31.0, 1, True, None),
        (Outcome.OVERLOADED, 31.0, 1, False, 30.0),
        (Outcome.RATE_LIMITED, 0.1, 1, True, 0.5),
        (Outcome.PROMPT_BLOCKED, None, 1, False, None),
        (Outcome.STORAGE_UNAVAILABLE, None, 1, False, None),
    ],
)
def test_the_wait_before_the_next_try(
    outcome: Outcome,
    asked: float | None,
    tries: int,
    hands_back: bool,  # noqa: FBT001 - a column of the table
    wait: float | None,
) -> None:
    fault = GenerationError(outcome, "", retry_after_seconds=asked)
    assert wait_before_next_try(fault, tries, 0.5, hands_back=hands_back) == wait


def test_faults_are_merged_into_one_hand_back() -> None:
    limited = GenerationError(Outcome.RATE_LIMITED, "limited", retry_after_seconds=60.0)
    slow = GenerationError(Outcome.TIMED_OUT, "slow")
    assert merged([limited]).outcome is Outcome.RATE_LIMITED
    both = merged([limited, slow])
    assert (both.outcome, both.message) == (Outcome.TIMED_OUT, "slow")
    assert both.retry_after_seconds == 60.0


class Asked:
    """Fails, and counts how often it was asked."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.times = 0

    async def __call__(self) -> None:
        self.times += 1
        raise self.error


def a_patience(clock: StillClock) -> Patience:
    backoff = Backoff(first_seconds=1.0, max_seconds=1.0)
    return Patience(limit_seconds=10.0, clock=clock, ids=SystemIds(), backoff=backoff)


async def test_patience_ends_with_its_limit() -> None:
    clock = StillClock()
    away = Asked(UnavailableError("away", retry_after_seconds=None))
    with pytest.raises(UnavailableError):
        await a_patience(clock).ask(away, lease=Lease(1, 1, 99.0), what="x")
    assert 8.0 <= clock.time <= 10.0
    assert away.times >= 9


async def test_patience_ends_with_the_lease() -> None:
    clock = StillClock()
    away = Asked(UnavailableError("away"))
    with pytest.raises(UnavailableError):
        await a_patience(clock).ask(away, lease=Lease(1, 1, 4.0), what="x")
    assert clock.time <= 4.0


async def test_what_cannot_pass_is_not_repeated() -> None:
    bad = Asked(InvalidArgumentError("no"))
    with pytest.raises(InvalidArgumentError):
        await a_patience(StillClock()).ask(bad, lease=Lease(1, 1, 99.0), what="x")
    assert bad.times == 1


async def test_the_circuit_tries_again_with_one_probe_at_a_time() -> None:
    clock = StillClock()
    circuit = GeneratorCircuit(clock, probe_seconds=30.0)
    changes: list[tuple[bool, bool]] = []
    circuit.on_change = lambda: changes.append((circuit.healthy, circuit.probing))
    circuit.answered(Outcome.UNAUTHORIZED)
    circuit.answered(Outcome.UNAUTHORIZED)
    circuit.answered(Outcome.OVERLOADED)
    assert not circuit.allows_calls
    for _ in range(5):
        await asyncio.sleep(0)
    assert (clock.time, circuit.allows_calls) == (30.0, True)
    circuit.answered(Outcome.UNAUTHORIZED)
    assert not circuit.allows_calls
    for _ in range(5):
        await asyncio.sleep(0)
    circuit.answered(Outcome.RATE_LIMITED)
    assert circuit.healthy
    assert changes == [(False, False), (False, True)] * 2 + [(True, False)]
    await circuit.stop()
