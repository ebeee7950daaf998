"""The governor: all workers together keep to a model's rate, and leave a failing one alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from libs.common.clock import Clock
from libs.common.errors import ContentshopError, LeaseLostError
from libs.common.group_commit import GroupCommit
from services.enqueue import governor
from services.enqueue.governor import CallReport, Grant, ModelState
from services.enqueue.store import audit, leases, models
from services.enqueue.usecases.deps import Deps
from services.enqueue.usecases.executing import Held
from services.enqueue.wakeups import WakeUp

# How long this process believes what it has read; another one may learn better meanwhile.
KNOWN_SECONDS = 1.0
MAX_KNOWN = 10_000
OBSERVED_SECONDS = 60.0
# A shorter wait is over before anybody could read of it.
MIN_NOTED_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Ask:
    held: Held
    model: str
    calls: int

    def held_by(self, fences: Mapping[int, int]) -> bool:
        """Whether its claim is the job's."""
        return fences.get(self.held.job_id) == self.held.fence


class _Meter:
    """Calls of the last minute that this process gave leave for, counted by the second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: dict[str, deque[tuple[int, int]]] = {}

    def add(self, model: str, calls: int) -> None:
        """So many calls just now."""
        if len(self._seconds) > MAX_KNOWN:
            self._seconds.clear()
        of_model = self._seconds.setdefault(model, deque(maxlen=int(OBSERVED_SECONDS)))
        second = int(self._clock.monotonic())
        if of_model and of_model[-1][0] == second:
            calls += of_model.pop()[1]
        of_model.append((second, calls))

    def calls(self, model: str) -> int:
        """Of the last minute."""
        oldest = self._clock.monotonic() - OBSERVED_SECONDS
        return sum(calls for second, calls in self._seconds.get(model, ()) if second >= oldest)


class Governor:
    """Gives leave for calls, and learns from how they went.

    A model without a limit that nothing is wrong with costs one read per job, and none while
    this process has read it, and the claim, within the last second. Everything else is decided
    under the model's row lock, many askers by one short transaction.

    Args:
        deps: shared means.
        clock: monotonic time, for what this process remembers; what is decided goes by the
            database's.
    """

    def __init__(self, deps: Deps, clock: Clock) -> None:
        self._deps = deps
        self._clock = clock
        self.commits: GroupCommit[_Ask, Grant] = GroupCommit(self._run)
        self._healthy: dict[str, float] = {}
        self._governed: dict[str, float] = {}
        self._claims: dict[int, tuple[int, float]] = {}
        self._meter = _Meter(clock)

    async def acquire(self, held: Held, model: str, calls: int) -> Grant:
        """Leave for up to so many calls; LeaseLostError."""
        if self._known(held, model):
            grant = Grant(calls)
        else:
            grant = await self.commits.submit(_Ask(held, model, calls))
        self._meter.add(model, grant.calls)
        return grant

    async def report(self, model: str, calls: CallReport) -> None:
        """Notes how calls went."""
        if not calls.rate_limited and not calls.failed and await self._is_no_news(model, calls.ok):
            return
        observed = max(self._meter.calls(model), calls.ok)
        async with self._deps.db.duty() as tx:
            states, now = await models.lock(tx, [model])
            state = governor.report(states[model], replace(calls, observed=observed), now)
            await models.save(tx, [state])
        self._forget(model)

    async def set_limit(self, model: str, calls_per_minute: int, actor: str) -> ModelState:
        """Sets a model's limit, 0 for none; the model as it is then."""
        async with self._deps.db.duty() as tx:
            states, now = await models.lock(tx, [model])
            state = governor.with_limit(states[model], calls_per_minute, now)
            await models.save(tx, [state])
            details = {"model": model, "old": states[model].limit, "new": calls_per_minute}
            await audit.add(tx, "", actor, "SET_MODEL_LIMIT", details=details)
        self._forget(model)
        return state

    def heard(self, wake_up: WakeUp) -> None:
        """Forgets claims of jobs that have changed."""
        if wake_up.all_jobs:
            self._claims.clear()
        for changed in wake_up.jobs:
            self._claims.pop(changed.job_id, None)

    # --- what this process knows

    def _known(self, held: Held, model: str) -> bool:
        fence, until = self._claims.get(held.job_id, (0, 0.0))
        claimed = fence == held.fence and self._clock.monotonic() < until
        return claimed and self._is_healthy(model)

    def _forget(self, model: str) -> None:
        self._healthy.pop(model, None)
        self._governed.pop(model, None)

    def _is_healthy(self, model: str) -> bool:
        return self._clock.monotonic() < self._healthy.get(model, float("-inf"))

    def _learn(self, claims: Mapping[int, int], healthy: Sequence[str]) -> None:
        until = self._clock.monotonic() + KNOWN_SECONDS
        for known in (self._claims, self._healthy, self._governed):
            if len(known) > MAX_KNOWN:
                known.clear()
        self._claims |= {job_id: (fence, until) for job_id, fence in claims.items()}
        self._healthy |= dict.fromkeys(healthy, until)

    # --- asking the database

    async def _run(self, asks: Sequence[_Ask]) -> list[Grant | ContentshopError]:
        """One group: by a read where all is well, else under the locks of its models."""
        now = self._clock.monotonic()
        if any(now < self._governed.get(ask.model, now) for ask in asks):
            return await self._by_locking(asks)  # a read would only say so again
        answers = await self._by_reading(asks)
        return await self._by_locking(asks) if answers is None else answers

    async def _by_reading(self, asks: Sequence[_Ask]) -> list[Grant | ContentshopError] | None:
        names = {ask.model for ask in asks}
        async with self._deps.db.read_all() as tx:
            states, now = await models.find(tx, names)
            governed = [name for name, state in states.items() if not state.healthy(now)]
            if governed:
                until = self._clock.monotonic() + KNOWN_SECONDS
                self._governed |= dict.fromkeys(governed, until)
                return None
            fences = await leases.fences(tx, _job_ids(asks))
        self._learn(fences, list(names))
        return [Grant(ask.calls) if ask.held_by(fences) else _lost() for ask in asks]

    async def _by_locking(self, asks: Sequence[_Ask]) -> list[Grant | ContentshopError]:
        answers: list[Grant | ContentshopError] = []
        waits: dict[int, datetime] = {}
        async with self._deps.db.duty() as tx:
            fences = await leases.fences(tx, _job_ids(asks))
            before, now = await models.lock(tx, {ask.model for ask in asks})
            states = dict(before)
            for ask in asks:
                if not ask.held_by(fences):
                    answers.append(_lost())
                    continue
                states[ask.model], grant = governor.acquire(states[ask.model], ask.calls, now)
                answers.append(grant)
                if grant.calls < ask.calls and grant.wait_seconds >= MIN_NOTED_WAIT_SECONDS:
                    waits[ask.held.job_id] = now + timedelta(seconds=grant.wait_seconds)
            await models.save(tx, [s for name, s in states.items() if s != before[name]])
        if waits:
            # After the models are free again: the rows of jobs may be waited for.
            async with self._deps.db.duty() as tx:
                await leases.note_rate_waits(tx, waits)
        return answers

    async def _is_no_news(self, model: str, ok: int) -> bool:
        """That calls went well is news only of a model that something was wrong with."""
        return not ok or self._is_healthy(model) or await self._read_healthy(model)

    async def _read_healthy(self, model: str) -> bool:
        async with self._deps.db.read_all() as tx:
            states, now = await models.find(tx, [model])
        healthy = all(state.healthy(now) for state in states.values())
        if healthy:
            self._learn({}, [model])
        return healthy


def _job_ids(asks: Sequence[_Ask]) -> set[int]:
    return {ask.held.job_id for ask in asks}


def _lost() -> LeaseLostError:
    return LeaseLostError("the lease of this claim is lost")
