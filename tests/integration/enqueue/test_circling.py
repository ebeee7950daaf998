"""Jobs that are given back without burning an attempt: they do not circle for ever.

On SQLite alone, whose clock is ours: what decides is counted and timed, not asked of the database.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from libs.common.db import Database
from libs.common.outcomes import Outcome
from services.enqueue import relay
from services.enqueue.domain import Job, JobState
from services.enqueue.store import admission, jobs, new_jobs
from services.enqueue.usecases.deps import Deps, Limits
from services.enqueue.usecases.executing import Held, claim_job, release_for_backoff
from tests.fakes.clock import ManualClock
from tests.integration.enqueue.rooms import SPEC, deps_of
from tests.support.databases import sqlite_database

LIMITS = Limits(max_claims=3, max_rate_wait_seconds=3600.0)


@dataclass
class Scene:
    """The use cases on a database and a clock of our own."""

    deps: Deps
    clock: ManualClock
    claims: itertools.count[int] = field(default_factory=itertools.count)

    async def job(self) -> int:
        async with self.deps.db.transaction("red") as tx:
            await admission.ensure_teams(tx, ["red"])
            [job] = await new_jobs.add(
                tx, [SPEC], admitted={SPEC.pin_token}, max_attempts=3, ring=3600.0, confirm=3600.0
            )
        return job.id

    async def give_back(self, job_id: int, outcome: Outcome) -> JobState:
        """One claim that ends so; then its wait is over."""
        job = await claim_job(self.deps, job_id, f"c{next(self.claims)}", "w1")
        state = await release_for_backoff(
            self.deps, Held(job_id, job.fence), outcome, "later", retry_after_seconds=1.0
        )
        self.clock.move(60.0)
        await relay.readmit(self.deps)
        return state

    async def find(self, job_id: int) -> Job:
        async with self.deps.db.read("red") as tx:
            job = await jobs.find(tx, job_id, "red")
        assert job is not None
        return job


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    clock = ManualClock()
    db = Database(sqlite_database("enqueue", tmp_path).app, clock=clock)
    yield Scene(deps_of(db, LIMITS), clock)
    await db.stop()


async def test_the_providers_rate_is_not_held_against_a_job_by_number(scene: Scene) -> None:
    job_id = await scene.job()
    for _ in range(10 * LIMITS.max_claims):
        assert await scene.give_back(job_id, Outcome.RATE_LIMITED) is JobState.QUEUED
    assert (await scene.find(job_id)).attempts == 0
    for _ in range(LIMITS.max_claims - 1):
        assert await scene.give_back(job_id, Outcome.UNAUTHORIZED) is JobState.QUEUED
    assert await scene.give_back(job_id, Outcome.UNAUTHORIZED) is JobState.FAILED


async def test_but_by_time(scene: Scene) -> None:
    job_id = await scene.job()
    await scene.give_back(job_id, Outcome.RATE_LIMITED)
    scene.clock.move(LIMITS.max_rate_wait_seconds)
    assert await scene.give_back(job_id, Outcome.RATE_LIMITED) is JobState.FAILED
    fault = (await scene.find(job_id)).fault
    assert fault is not None
    assert fault.reason == "RATE_LIMITED"


async def test_the_waits_grow_to_a_minute(scene: Scene) -> None:
    job_id = await scene.job()
    waits = []
    for number in range(8):
        job = await claim_job(scene.deps, job_id, f"w{number}", "w1")
        held = Held(job_id, job.fence)
        await release_for_backoff(scene.deps, held, Outcome.RATE_LIMITED, "later", 0.0)
        back = await scene.find(job_id)
        assert back.not_before is not None
        assert back.rate_wait_until == back.not_before
        waits.append((back.not_before - scene.clock.now()).total_seconds())
        scene.clock.move(60.0)
        await relay.readmit(scene.deps)
    most = [2.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert all(m / 2 <= wait <= m for wait, m in zip(waits, most, strict=True)), waits
