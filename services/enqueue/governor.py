"""The governor's rules: how many calls a model may get, from what its provider answers.

Plain functions from a state and the time to the next state; standard library only.

The rate is a token bucket shared by all workers. A 429 halves it and blocks the model for as long
as the provider asks; then it grows back evenly. Where no limit is set, a 429 starts a rate from
what was observed, and it is forgotten when there was no 429 for a while.

The circuit of a model, how each state is entered, how it is left:

CLOSED     calls go through. Left for OPEN by failures in a row.
OPEN       nobody calls before `blocked_until`. Then the first who asks makes it HALF_OPEN.
HALF_OPEN  one call finds out. CLOSED when it comes back with any answer, OPEN for longer when it
           fails; when nothing is heard of it in time, another call goes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

SECONDS_PER_MINUTE = 60.0
# A bucket holds this many seconds of calls: a burst at once, but no minute far over the limit.
BURST_SECONDS = 5.0
MIN_RATE_PER_MINUTE = 1.0
SLOWER_FACTOR = 0.5
# The calls of one burst are refused together: they slow the model down once.
SLOWER_ONCE_SECONDS = 5.0
# Per second: a hundredth of the limit, or one call per minute more. Half a limit is back in 50 s.
FASTER_SHARE = 0.01
FASTER_PER_MINUTE = 1.0
MIN_BLOCK_SECONDS = 2.0
MAX_BLOCK_SECONDS = 3600.0
# A rate that nobody set is dropped when there was no 429 for this long.
FORGET_SECONDS = 600.0
FAILURES_TO_OPEN = 5
FIRST_OPEN_SECONDS = 10.0
MAX_OPEN_SECONDS = 300.0
# A probe is a whole generator call, which may take two minutes.
PROBE_SECONDS = 150.0
PROBE_LOOK_SECONDS = 2.0


class Circuit(StrEnum):
    """Whether a model takes calls."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model as the governor sees it.

    Attributes:
        limit: calls per minute that an operator set; 0: none.
        rate: calls per minute just now; 0: no limit.
        tokens: calls that may be made at once, as of refilled_at.
        blocked_until: no call before.
        slowed_at: the last 429.
        failures: of the provider, in a row; while the circuit is not CLOSED they say how often
            it opened.
        probe_until: HALF_OPEN: how long the one call is waited for.
    """

    model: str
    limit: int
    rate: float
    tokens: float
    refilled_at: datetime
    blocked_until: datetime | None = None
    slowed_at: datetime | None = None
    failures: int = 0
    circuit: Circuit = Circuit.CLOSED
    probe_until: datetime | None = None

    def healthy(self, now: datetime) -> bool:
        """Whether any number of calls may go: nothing is set, nothing is wrong."""
        return (
            not self.limit
            and not self.rate
            and self.circuit is Circuit.CLOSED
            and not self.failures
            and (self.blocked_until is None or self.blocked_until <= now)
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """How many calls may be made now, and when to ask for the rest, in seconds from now."""

    calls: int
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CallReport:
    """How calls went: answered, refused as too many, failed at the provider.

    Attributes:
        retry_after_seconds: what the provider asked for; 0: nothing.
        observed: calls within the last minute, as far as the reporter's server has seen.
    """

    ok: int
    rate_limited: int
    failed: int
    retry_after_seconds: float = 0.0
    observed: int = 0


def new_model(model: str, now: datetime) -> ModelState:
    """A model that nothing is known of."""
    return ModelState(model, limit=0, rate=0.0, tokens=0.0, refilled_at=now)


def capacity(rate: float) -> float:
    """The most calls at once at a rate."""
    return max(1.0, rate * BURST_SECONDS / SECONDS_PER_MINUTE)


def passed(state: ModelState, now: datetime) -> ModelState:
    """The state after the time that has gone by: calls refilled, the rate grown back."""
    now = max(now, state.refilled_at)  # several machines' calls: time never runs back
    if not state.rate:
        return replace(state, refilled_at=now)
    if not state.limit and state.slowed_at and _seconds(state.slowed_at, now) > FORGET_SECONDS:
        return replace(state, rate=0.0, tokens=0.0, refilled_at=now)
    # While the model is blocked nothing is earned, and nothing is forgiven.
    since = max(state.refilled_at, state.blocked_until or state.refilled_at)
    seconds = max(0.0, _seconds(since, now))
    tokens = state.tokens + seconds * state.rate / SECONDS_PER_MINUTE
    rate = state.rate + seconds * max(FASTER_PER_MINUTE, state.limit * FASTER_SHARE)
    if state.limit:
        rate = min(rate, float(state.limit))
    return replace(state, rate=rate, tokens=min(tokens, capacity(rate)), refilled_at=now)


def acquire(state: ModelState, calls: int, now: datetime) -> tuple[ModelState, Grant]:
    """Leave for up to so many calls now, and how long to wait for the rest."""
    state = passed(state, now)
    if state.blocked_until is not None and state.blocked_until > now:
        return state, Grant(0, _seconds(now, state.blocked_until))
    if state.circuit is not Circuit.CLOSED:
        if state.circuit is Circuit.HALF_OPEN and state.probe_until and state.probe_until > now:
            return state, Grant(0, min(PROBE_LOOK_SECONDS, _seconds(now, state.probe_until)))
        probing = replace(
            state,
            circuit=Circuit.HALF_OPEN,
            probe_until=now + timedelta(seconds=PROBE_SECONDS),
            blocked_until=None,
        )
        return probing, Grant(1, PROBE_LOOK_SECONDS if calls > 1 else 0.0)
    if not state.rate:
        return state, Grant(calls)
    granted = min(calls, int(state.tokens + 1e-6))
    left = max(0.0, state.tokens - granted)
    wait = (1.0 - left) * SECONDS_PER_MINUTE / state.rate if granted < calls else 0.0
    return replace(state, tokens=left), Grant(granted, max(0.0, wait))


def report(state: ModelState, calls: CallReport, now: datetime) -> ModelState:
    """What the governor makes of how calls went."""
    state = passed(state, now)
    if calls.rate_limited:
        state = _slower(state, calls, now)
    if calls.ok or calls.rate_limited:
        # Late answers of calls begun before it opened say nothing of an OPEN one.
        if state.circuit is Circuit.OPEN:
            return state
        return replace(state, circuit=Circuit.CLOSED, failures=0, probe_until=None)
    if calls.failed:
        state = _failed(state, calls.failed, now)
    return state


def with_limit(state: ModelState, limit: int, now: datetime) -> ModelState:
    """The state under another limit, which holds at once; 0: none of ours."""
    state = passed(state, now)
    rate = float(limit)
    tokens = min(state.tokens, capacity(rate)) if state.rate else capacity(rate)
    return replace(state, limit=limit, rate=rate, tokens=tokens if limit else 0.0)


def _slower(state: ModelState, calls: CallReport, now: datetime) -> ModelState:
    block = min(MAX_BLOCK_SECONDS, max(MIN_BLOCK_SECONDS, calls.retry_after_seconds))
    until = now + timedelta(seconds=block)
    until = max(until, state.blocked_until or until)
    rate = state.rate
    slowed_lately = (
        state.slowed_at is not None and _seconds(state.slowed_at, now) < SLOWER_ONCE_SECONDS
    )
    if not rate:
        rate = max(MIN_RATE_PER_MINUTE, calls.observed * SLOWER_FACTOR)
    elif not slowed_lately:
        rate = max(MIN_RATE_PER_MINUTE, rate * SLOWER_FACTOR)
    return replace(state, rate=rate, tokens=0.0, blocked_until=until, slowed_at=now)


def _failed(state: ModelState, failed: int, now: datetime) -> ModelState:
    if state.circuit is Circuit.OPEN:
        return state
    if state.circuit is Circuit.HALF_OPEN:
        failures = state.failures + 1
    else:
        failures = min(FAILURES_TO_OPEN, state.failures + failed)
    if failures < FAILURES_TO_OPEN:
        return replace(state, failures=failures)
    doublings = min(10, failures - FAILURES_TO_OPEN)
    seconds = min(MAX_OPEN_SECONDS, FIRST_OPEN_SECONDS * 2.0**doublings)
    until = now + timedelta(seconds=seconds)
    return replace(
        state,
        failures=failures,
        circuit=Circuit.OPEN,
        blocked_until=max(until, state.blocked_until or until),
        probe_until=None,
    )


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()
