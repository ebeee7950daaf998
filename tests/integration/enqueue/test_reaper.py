"""The reaper takes what ran out at once; for a lease after an outage of ours it blames nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from libs.common.db import Database
from services.enqueue.domain import JobState
from services.enqueue.relay import Reaper
from services.enqueue.store import admission, jobs, leases, new_jobs
from services.enqueue.usecases.deps import Deps, Limits
from services.enqueue.usecases.executing import claim_job
from tests.fakes.clock import ManualClock
from tests.integration.enqueue.house import CLOCK
from tests.integration.enqueue.rooms import SPEC, deps_of
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually

LEASE_SECONDS = 0.1  # of the claim, by the database's clock; the reaper's rounds are by hand
AWAY_SECONDS = 60.0


@dataclass
class Scene:
    """The use cases on a database, without any duty but the reaper a test winds by hand."""

    deps: Deps
    clock: ManualClock

    def reaper(self) -> Reaper:
        return Reaper(self.deps, self.clock, 1.0)

    async def expired_job(self) -> int:
        """A running job whose lease has run out."""
        async with self.deps.db.transaction("red") as tx:
            await admission.ensure_teams(tx, ["red"])
            [job] = await new_jobs.add(
                tx, [SPEC], admitted={SPEC.pin_token}, max_attempts=3, ring=3600.0, confirm=3600.0
            )
        await claim_job(self.deps, job.id, "c1", "w1")

        async def is_expired() -> bool:
            async with self.deps.db.read_all() as tx:
                return bool(await leases.expired(tx, 10))

        await eventually(is_expired)
        return job.id

    async def standing(self, job_id: int) -> tuple[int, JobState]:
        """How many workers it lost, and its state."""
        async with self.deps.db.read("red") as tx:
            job = await jobs.find(tx, job_id, "red")
        assert job is not None
        return job.lost_workers, job.state


@pytest.fixture
async def scene(urls: DatabaseUrls) -> AsyncIterator[Scene]:
    db = Database(urls.app, duty_url=urls.duty, clock=CLOCK)
    yield Scene(deps_of(db, Limits(lease_seconds=LEASE_SECONDS)), ManualClock())
    await db.stop()


async def test_a_fresh_reaper_takes_at_once_and_blames_nobody(scene: Scene) -> None:
    job_id = await scene.expired_job()
    await scene.reaper().round()
    assert await scene.standing(job_id) == (0, JobState.QUEUED)


async def test_for_a_lease_nobody_is_blamed(scene: Scene) -> None:
    reaper = scene.reaper()
    await reaper.round()
    job_id = await scene.expired_job()
    scene.clock.move(LEASE_SECONDS * 0.9)
    await reaper.round()
    assert await scene.standing(job_id) == (0, JobState.QUEUED)


async def test_a_lease_later_a_silent_worker_is_counted(scene: Scene) -> None:
    reaper = scene.reaper()
    await reaper.round()
    job_id = await scene.expired_job()
    scene.clock.move(LEASE_SECONDS)
    await reaper.round()
    assert await scene.standing(job_id) == (1, JobState.QUEUED)


async def test_an_outage_in_between_is_treated_alike(scene: Scene) -> None:
    reaper = scene.reaper()
    await reaper.round()
    scene.clock.move(LEASE_SECONDS)
    await reaper.round()  # from here on it would blame
    job_id = await scene.expired_job()
    scene.clock.move(AWAY_SECONDS)
    await reaper.round()
    assert await scene.standing(job_id) == (0, JobState.QUEUED)
