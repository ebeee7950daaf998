"""kill -9 of each part in the middle of two jobs: they end as if nothing had happened."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from contentshop.enqueue.v1 import job_pb2
from libs.common.errors import FailedPreconditionError, UnavailableError
from tests.fakes.gemini_behaviours import Behaviour
from tests.fakes.gemini_stub import GeminiStub
from tests.support.eventually import eventually
from tests.support.fleet import Fleet, Servers, running_fleet
from tests.support.fleet_team import FleetTeam, Watched
from tests.support.invariants import check_invariants

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("show_logs"), pytest.mark.timeout(400)]

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "mug.jpg"
KEY = "key-of-the-stub"
JOBS = 2
# Images that are held when a test says so, two at a time on each worker; short floors, so that
# healing is quick.
SETTINGS = {
    "GENERATOR": "gemini",
    "GEMINI_API_KEY": KEY,
    "GOVERNOR": "false",
    "WORKER_IMAGES_AT_ONCE": "2",
    "WORKER_DRAIN_SECONDS": "3",
    # enqueue is away again and again, longer than a lease on a busy machine.
    "MAX_LOST_WORKERS": "20",
    "WORKER_RENEW_SECONDS": "1",
    "SWEEP_SECONDS": "0.5",
    "HEARTBEAT_SECONDS": "1",
    "ARCHIVE_RING_SECONDS": "2",
    "CONFIRM_SECONDS": "1",
    "PACKAGER_LEASE_SECONDS": "2",
    "PACKAGER_SWEEP_SECONDS": "0.5",
    "ASSETS_SWEEP_SECONDS": "0.5",
    "ASSETS_REMOVAL_SECONDS": "0",
    "GRACE_SECONDS": "1",
}
# A relay that died leaves its rows to others after 6 s: those three go first, the rest of the
# test runs meanwhile.
CRASH_POINTS = ("E4", "E5", "E6", "E2", "E3", "E8", "E9", "E10")


@pytest.fixture(scope="module")
async def gemini() -> AsyncIterator[GeminiStub]:
    """What the workers call."""
    async with GeminiStub(api_key=KEY) as stub:
        yield stub


@pytest.fixture(scope="module")
async def fleet(servers: Servers, gemini: GeminiStub) -> AsyncIterator[Fleet]:
    """With two workers; every test leaves it whole."""
    settings = {**SETTINGS, "GEMINI_BASE_URL": gemini.base_url}
    async with running_fleet(servers, settings, workers=2) as fleet:
        yield fleet


def _let_go(gemini: GeminiStub) -> None:
    """Images are answered, those that are asked for and those to come."""
    gemini.script()
    gemini.release()


Disturbance = Callable[[FleetTeam], Awaitable[None]]


async def _carried_through(
    fleet: Fleet, gemini: GeminiStub, disturb: Disturbance, images: int = 4
) -> list[Watched]:
    """Two jobs, disturbed in the middle; what their watchers saw, all checked.

    The first images are made, the others held until `disturb` lets them go.
    """
    gemini.script(Behaviour(times=JOBS), Behaviour(held=True))
    team = fleet.team()
    await fleet.grant(team, JOBS * images)
    photo = await team.upload(PHOTO.read_bytes())
    jobs = [await team.make_job(photo, images) for _ in range(JOBS)]
    watched = [Watched() for _ in jobs]
    async with asyncio.TaskGroup() as group:
        for job, seen in zip(jobs, watched, strict=True):
            group.create_task(team.watch(job.id, seen))
        await eventually(lambda: any("IMAGE_DONE" in seen.kinds() for seen in watched))
        await eventually(lambda: all("STARTED" in seen.kinds() for seen in watched))
        assert not any("SUCCEEDED" in seen.kinds() for seen in watched)
        await disturb(team)
    for seen in watched:
        await _check(team, seen)
    assert len(await team.jobs()) == JOBS
    await check_invariants(fleet)
    await team.delete(photo.id)  # no job pins it any more
    return watched


async def _check(team: FleetTeam, seen: Watched) -> None:
    """The watcher saw every event once, each image done once; the job is whole, zip and all."""
    assert [event.sequence for event in seen.events] == list(range(1, seen.job.last_sequence + 1))
    done = [e.image_index for e in seen.events if e.kind == job_pb2.JOB_EVENT_KIND_IMAGE_DONE]
    assert sorted(done) == list(range(1, seen.job.number_of_variations + 1))
    assert seen.kinds()[-1] == "ARCHIVE_READY"
    await team.check_done(seen.job)


@pytest.mark.parametrize("victim", ["enqueue", "worker", "assets"])
async def test_a_service_is_killed(fleet: Fleet, gemini: GeminiStub, victim: str) -> None:
    async def kill(_: FleetTeam) -> None:
        fleet.kill(victim)
        _let_go(gemini)
        fleet.restart(victim)
        await fleet.wait_ready()

    watched = await _carried_through(fleet, gemini, kill)
    if victim == "enqueue":
        assert all(seen.connections > 1 for seen in watched)
    if victim == "worker":
        assert any("REQUEUED" in seen.kinds() for seen in watched)


@pytest.mark.parametrize("point", ["A2", "A6"])
async def test_assets_dies_with_half_a_blob_or_with_bytes_reserved(
    fleet: Fleet, point: str
) -> None:
    photo = PHOTO.read_bytes()
    team = fleet.team()
    fleet.restart("assets", CRASH_AT=point)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(team.upload(photo))  # repeated until it is answered
        await fleet.died("assets")
        fleet.restart("assets")
    assert asked.result().size_bytes == len(photo)
    job = await team.make_job(asked.result(), 1)
    seen = await team.watch(job.id)
    await team.check_done(seen.job)
    await check_invariants(fleet)


async def test_assets_dies_between_a_deleted_files_blob_and_its_row(fleet: Fleet) -> None:
    team = fleet.team()
    photo = await team.upload(PHOTO.read_bytes())
    await eventually(lambda: _no_tombstone(fleet))  # of the tests before: it would die of those
    fleet.restart("assets", CRASH_AT="C1")
    await fleet.wait_ready("assets")
    with suppress(UnavailableError):  # it may die before it has answered
        await team.delete(photo.id)
    await fleet.died("assets")
    fleet.restart("assets")
    await fleet.wait_ready("assets")
    await eventually(lambda: _no_tombstone(fleet))
    await check_invariants(fleet)


def _no_tombstone(fleet: Fleet) -> bool:
    with psycopg.connect(fleet.dsn("assets")) as assets:
        row = assets.execute("SELECT count(*) FROM files WHERE deleted_at IS NOT NULL").fetchone()
    return row == (0,)


async def test_the_packager_is_killed_in_the_middle_of_a_zip(
    fleet: Fleet, gemini: GeminiStub
) -> None:
    fleet.restart("packager", CRASH_AT="P2:2")
    await fleet.wait_ready("packager")

    async def kill(_: FleetTeam) -> None:
        _let_go(gemini)
        await fleet.died("packager")
        fleet.restart("packager")

    await _carried_through(fleet, gemini, kill)


async def test_workers_that_are_told_to_stop_burn_no_attempt(
    fleet: Fleet, gemini: GeminiStub
) -> None:
    async def stop(_: FleetTeam) -> None:
        list(fleet.new_logs("stop"))
        stopping: set[str] = set()

        def all_are_stopping() -> bool:
            stopping.update(n for n, log in fleet.new_logs("stop") if '"service.stopping"' in log)
            return stopping == set(fleet.processes("worker"))

        async with asyncio.TaskGroup() as group:
            group.create_task(fleet.terminate("worker"))
            await eventually(all_are_stopping)
            gemini.release()  # those in flight may end; any other is held
        _let_go(gemini)
        fleet.restart("worker")
        await fleet.wait_ready("worker")

    watched = await _carried_through(fleet, gemini, stop, images=6)
    assert any("REQUEUED" in seen.kinds() for seen in watched)
    for seen in watched:
        assert (seen.job.attempts, seen.job.lost_workers) == (1, 0)
        assert {e.error.reason for e in seen.events} <= {"", "WORKER_DRAINED"}


async def test_postgresql_is_killed(fleet: Fleet, gemini: GeminiStub) -> None:
    async def kill(_: FleetTeam) -> None:
        await asyncio.to_thread(fleet.servers.postgres.kill)
        _let_go(gemini)
        fleet.restart("packager")  # begins without its database, and waits for it
        await asyncio.to_thread(fleet.servers.postgres.start)
        await fleet.wait_ready()

    await _carried_through(fleet, gemini, kill)


async def test_s3_is_killed(fleet: Fleet, gemini: GeminiStub) -> None:
    async def kill(_: FleetTeam) -> None:
        await asyncio.to_thread(fleet.servers.seaweed.kill)
        _let_go(gemini)
        await asyncio.to_thread(fleet.servers.seaweed.start)

    await _carried_through(fleet, gemini, kill)


async def test_rabbitmq_is_killed(fleet: Fleet, gemini: GeminiStub) -> None:
    rabbit = fleet.servers.rabbit
    await asyncio.to_thread(rabbit.sync_metadata)
    late: list[Watched] = []

    async def kill(_: FleetTeam) -> None:
        await asyncio.to_thread(rabbit.kill)
        _let_go(gemini)
        other = fleet.team()
        # A job is taken while there is no broker, and waits.
        job = await other.make_job(await other.upload(PHOTO.read_bytes()), 2)
        assert job.state == job_pb2.JOB_STATE_QUEUED
        fleet.restart("worker-2")  # begins without the broker, and waits for it
        await asyncio.to_thread(rabbit.start)
        late.append(await other.watch(job.id))
        await _check(other, late[0])

    await _carried_through(fleet, gemini, kill)
    assert late


async def test_news_that_assets_lost_is_said_again(fleet: Fleet, gemini: GeminiStub) -> None:
    """All its messages are purged while it is away: an input would be in use for ever."""
    rabbit = fleet.servers.rabbit
    gemini.script(Behaviour(held=True))
    team = fleet.team()
    photo = await team.upload(PHOTO.read_bytes())
    job = await team.make_job(photo, 1)
    fleet.kill("assets")
    await team.cancel(job.id)
    with psycopg.connect(fleet.dsn("enqueue"), autocommit=True) as enqueue:

        def published() -> bool:
            return enqueue.execute("SELECT count(*) FROM outbox").fetchone() == (0,)

        await eventually(published)
    await asyncio.to_thread(rabbit.ctl, "purge_queue", "-p", fleet.bucket, "assets.jobs")
    _let_go(gemini)
    fleet.restart("assets")
    await fleet.wait_ready("assets")

    async def deleted() -> bool:
        try:
            await team.delete(photo.id)
        except FailedPreconditionError:  # FILE_IN_USE
            return False
        return True

    await eventually(deleted)
    await check_invariants(fleet)


async def test_enqueue_dies_at_every_step(fleet: Fleet) -> None:
    watched: dict[str, Watched] = {}
    async with asyncio.TaskGroup() as group:
        for point in CRASH_POINTS:
            team = fleet.team(f"at-{point}")
            await fleet.grant(team, 2)
            photo = await team.upload(PHOTO.read_bytes())
            request_id = secrets.token_hex(8)
            fleet.restart("enqueue", CRASH_AT=point)
            asked = group.create_task(team.make_job(photo, 2, request_id=request_id))
            await fleet.died("enqueue")
            fleet.restart("enqueue")
            job = await asked
            again = await team.make_job(photo, 2, request_id=request_id)
            assert again.id == job.id, point
            watched[point] = Watched()
            group.create_task(team.watch(job.id, watched[point]))
    for point, seen in watched.items():
        team = fleet.team(f"at-{point}")
        await _check(team, seen)
        assert len(await team.jobs()) == 1, point
    await check_invariants(fleet)
