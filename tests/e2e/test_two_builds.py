"""Two builds side by side, as while a new one is rolled out, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import psycopg
import pytest

from tests.support.builds import SAID, later_build
from tests.support.eventually import eventually
from tests.support.fleet import Fleet, Servers, running_fleet
from tests.support.fleet_team import FleetTeam
from tests.support.invariants import check_invariants
from tests.support.process import StartError

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("show_logs"), pytest.mark.timeout(400)]

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "mug.jpg"
TEAMS_OF_EACH = 3  # replica of enqueue
IMAGES = 2
SETTINGS = {
    "OFFLINE_DELAY_SECONDS": "0.5",
    "WORKER_SLOTS": "2",  # so that both workers get jobs
    "MAX_LOST_WORKERS": "20",
    "SWEEP_SECONDS": "0.5",
    "HEARTBEAT_SECONDS": "1",
    "ARCHIVE_RING_SECONDS": "2",
    "CONFIRM_SECONDS": "1",
    "PACKAGER_LEASE_SECONDS": "2",
    "GRACE_SECONDS": "1",
    "WORKER_DRAIN_SECONDS": "5",
}


@pytest.fixture(scope="module")
async def fleet(servers: Servers) -> AsyncIterator[Fleet]:
    """Two of what may be several."""
    async with running_fleet(servers, SETTINGS, workers=2, enqueues=2) as fleet:
        yield fleet


class Shop:
    """Teams, some at each replica; each makes a job at a time, followed to its zip."""

    def __init__(self, fleet: Fleet) -> None:
        self._teams = [
            fleet.team(enqueue=name)
            for name in fleet.processes("enqueue")
            for _ in range(TEAMS_OF_EACH)
        ]
        self.jobs = 0

    async def work(self) -> None:
        async with asyncio.TaskGroup() as group:
            for team in self._teams:
                group.create_task(self._job(team))

    async def _job(self, team: FleetTeam) -> None:
        job = await team.make_job(await team.upload(PHOTO.read_bytes()), IMAGES)
        seen = await team.watch(job.id)
        numbers = [event.sequence for event in seen.events]
        assert numbers == list(range(1, seen.job.last_sequence + 1))
        await team.check_done(seen.job)
        self.jobs += 1


async def _migrate(fleet: Fleet, build: Mapping[str, str]) -> None:
    """As operators do: a migration that does not get its locks gives up, and is run again."""

    async def done() -> bool:
        try:
            await fleet.migrate(**build)
        except StartError as error:
            if "lock timeout" not in str(error):
                raise
            return False
        return True

    await eventually(done, timeout_seconds=120)


def _column(fleet: Fleet, name: str) -> set[object]:
    with psycopg.connect(fleet.dsn("enqueue")) as enqueue:
        return {row[0] for row in enqueue.execute(f"SELECT DISTINCT {name} FROM jobs")}  # noqa: S608 - ours


async def test_builds_work_side_by_side_and_a_rollout_can_be_taken_back(
    fleet: Fleet, tmp_path: Path
) -> None:
    later = (await asyncio.to_thread(later_build, tmp_path / "later")).environ()
    shop = Shop(fleet)
    async with asyncio.TaskGroup() as group:  # the schema goes first, under the old build
        group.create_task(shop.work())
        group.create_task(_migrate(fleet, later))
    assert _column(fleet, "later") == {None}

    async with asyncio.TaskGroup() as group:
        group.create_task(shop.work())
        for name in ("enqueue-1", "worker-1"):
            await fleet.terminate(name)
            fleet.restart(name, **later)
        await fleet.wait_ready()
    for _ in range(2):
        await shop.work()
    assert _column(fleet, "later") == {None, SAID}  # both enqueues had jobs
    assert _column(fleet, "worker") == {"worker-1", "worker-2"}  # and both workers

    async with asyncio.TaskGroup() as group:  # one of each build dies
        group.create_task(shop.work())
        fleet.kill("worker-1")
        fleet.restart("worker-1", **later)
        fleet.kill("enqueue-2")
        fleet.restart("enqueue-2")
        await fleet.wait_ready()

    async with asyncio.TaskGroup() as group:  # back to the old one; the column stays
        group.create_task(shop.work())
        for name in ("enqueue-1", "worker-1"):
            fleet.kill(name)
            fleet.restart(name)
        await fleet.wait_ready()
    await shop.work()
    assert shop.jobs == 7 * 2 * TEAMS_OF_EACH
    await check_invariants(fleet)
