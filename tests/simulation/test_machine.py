"""DESIGN's promises, whatever is done in whatever order: Hypothesis chooses, and shrinks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.simulation.promises import broken_at_rest, broken_now, read, untold
from tests.simulation.walk import DUTIES, LANE, heal
from tests.simulation.world import TEAMS, World

teams = st.sampled_from(TEAMS)
workers = st.integers(0, 2)
picks = st.integers(0, 7)
some = st.booleans()


class LifeOfJobs(RuleBasedStateMachine):
    """One house, one act at a time, on a clock that moves by hand."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._world = World(Random(1))  # noqa: S311 - jitter, not secrets
        self._run(self._world.__aenter__())
        for team in TEAMS:
            self._run(self._world.grant(team, 25, "first"))

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def _job(self, pick: int, state: str = "") -> tuple[int, str] | None:
        jobs = self._world.all_jobs(state)
        return jobs[pick % len(jobs)] if jobs else None

    @rule(team=teams, count=st.integers(1, 4), priority=st.sampled_from((0, 9)))
    def enqueue(self, team: str, count: int, priority: int) -> None:
        self._run(self._world.enqueue(team, count, priority))

    @rule(team=teams, count=st.integers(1, 2), name=st.sampled_from(("a", "b")))
    def enqueue_again(self, team: str, count: int, name: str) -> None:
        self._run(self._world.enqueue(team, count, 0, name))

    @rule(team=teams, variants=st.integers(1, 4), count=st.integers(1, 2))
    def enqueue_batch(self, team: str, variants: int, count: int) -> None:
        self._run(self._world.batch(team, variants, count))

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        if job := self._job(pick):
            self._run(self._world.cancel(job[1], job[0]))

    @rule(pick=picks, only_missing=some)
    def retry(self, pick: int, only_missing: bool) -> None:  # noqa: FBT001 - Hypothesis calls it
        if job := self._job(pick, "FAILED"):
            self._run(self._world.retry(job[1], job[0], only_missing=only_missing))

    @rule(cancel=some)
    def end_batch(self, cancel: bool) -> None:  # noqa: FBT001 - Hypothesis calls it
        if batch := self._world.some_batch(self._world.random):
            act = self._world.cancel_batch if cancel else self._world.retry_batch
            self._run(act(batch[1], batch[0]))

    @rule(worker=workers)
    def take_doorbell(self, worker: int) -> None:
        self._run(self._world.take_doorbell(self._world.workers[worker], LANE))

    @rule(worker=workers, pick=picks, luck=st.sampled_from((0.05, 0.1, 0.18, 0.5, 0.9)))
    def work(self, worker: int, pick: int, luck: float) -> None:
        played = self._world.workers[worker]
        if played.claims:
            job_id = list(played.claims)[pick % len(played.claims)]
            self._run(self._world.work(played, job_id, luck))

    @rule(worker=workers)
    def renew(self, worker: int) -> None:
        self._run(self._world.renew(self._world.workers[worker]))

    @rule(worker=workers, again=some)
    def lose_worker(self, worker: int, again: bool) -> None:  # noqa: FBT001 - Hypothesis calls it
        played = self._world.workers[worker]
        played.claims.clear()
        if again:
            self._run(self._world.begin(played))

    @rule(duty=st.sampled_from((*DUTIES, "relay", "relay")))
    def do_duty(self, duty: str) -> None:
        self._run(self._world.duty(duty))

    @rule(seconds=st.integers(1, 20))
    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self._world.clock.move(1.0)
            self._run(self._world.duty("reaper"))

    @rule(days=st.sampled_from((10, 400)))
    def clean_up(self, days: int) -> None:
        """Time for retention: what is old and ended goes, and nothing else."""
        self._world.clock.move(days * 86_400.0)
        self._run(self._world.clean_up())

    @rule()
    def restart(self) -> None:
        self._run(self._world.crash())

    @rule(fails=some)
    def build_zip(self, fails: bool) -> None:  # noqa: FBT001 - Hypothesis calls it
        self._run(self._world.packager(fails=fails))

    @invariant()
    def promises_hold(self) -> None:
        assert not list(broken_now(read(self._world.reader, self._world.clock.now())))

    def teardown(self) -> None:
        self._run(heal(self._world, self._world.random))
        state = read(self._world.reader, self._world.clock.now())
        broken = [*broken_at_rest(state), *untold(state, self._world.broker.told)]
        self._run(self._world.__aexit__(None, None, None))
        self._runner.close()
        assert not broken


TestLifeOfJobs = pytest.mark.timeout(600)(LifeOfJobs.TestCase)
TestLifeOfJobs.settings = settings(
    max_examples=25,
    stateful_step_count=35,
    deadline=None,
    derandomize=True,  # the suite says the same today and tomorrow; the seeds explore
    suppress_health_check=list(HealthCheck),
)
