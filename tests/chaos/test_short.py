"""Chaos for a minute: one of each kind under load, and a worker that comes back from the dead.

Every crash point has its test elsewhere: docs/FAULTS.md says where. `make chaos` is the long form.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from functools import partial

import psycopg
import pytest

from contentshop.enqueue.v1 import job_pb2
from tests.chaos.disturbances import OF_SERVICES, Disturbance
from tests.chaos.house import ChaosHouse, chaos_house
from tests.chaos.load import PHOTO
from tests.chaos.run import Plan, Run
from tests.chaos.surroundings import OF_GEMINI, OF_SERVERS, OF_WIRES
from tests.fakes.gemini_behaviours import Behaviour
from tests.support.databases import PostgresTemplates
from tests.support.eventually import eventually
from tests.support.fleet import LOG_TAIL_CHARS, Servers
from tests.support.invariants import check_invariants
from tests.support.postgres import PostgresServer
from tests.support.rabbitmq import RabbitServer
from tests.support.seaweed import SeaweedServer

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

SETTINGS = {
    "LEASE_SECONDS": "4",
    "WORKER_RENEW_SECONDS": "1",
    "WORKER_IMAGE_TIMEOUT_SECONDS": "120",  # no held call gives up
    "SWEEP_SECONDS": "0.5",
    "ARCHIVE_RING_SECONDS": "1",
    "CONFIRM_SECONDS": "1",
    "PACKAGER_LEASE_SECONDS": "2",
    "PACKAGER_SWEEP_SECONDS": "0.5",
    "ASSETS_SWEEP_SECONDS": "0.5",
}
IMAGE_MS = 800
HASTE = 0.35
EVENTS_SECONDS = 90.0
EACH = (
    "kill enqueue",
    "queues purged",
    "broker memory alarm",
    "commits cut, and done",
    "stop worker",
    "drain worker",
    "queues deleted",
    "database frozen",
    "commits cut, and not heard",
    "kill worker",
    "blob store killed",
    "gemini 503",
    "s3 truncated",
)


@pytest.fixture(scope="module")
async def house(
    postgres_server: PostgresServer,
    postgres_templates: PostgresTemplates,
    rabbit_server: RabbitServer,
    seaweed: SeaweedServer,
) -> AsyncIterator[ChaosHouse]:
    """Two enqueues, three workers, proxies before all servers; the dice fall the same each time."""
    servers = Servers(postgres_server, postgres_templates, rabbit_server, seaweed)
    dice = random.Random(1)  # noqa: S311 - to be repeated
    async with chaos_house(servers, dice, SETTINGS) as house:
        house.haste = HASTE
        house.gemini.delay_ms = IMAGE_MS
        yield house


def _named(name: str) -> Disturbance:
    every = (*OF_SERVICES, *OF_SERVERS, *OF_WIRES, *OF_GEMINI)
    return next(each for each in every if each.name == name)


async def test_one_of_each_kind(house: ChaosHouse) -> None:
    plan = Plan(minutes=0, teams=3, jobs_per_minute=50, each=[_named(name) for name in EACH])
    figures = await Run(house, plan, lambda _: None)()
    if figures["broken"]:
        for name, text in house.fleet.new_logs("show"):
            print(f"---- {name}\n{text[-LOG_TAIL_CHARS:]}")  # noqa: T201 - pytest shows it
    assert figures["broken"] == []
    assert figures["jobs"] >= 10
    assert house.ledger.commits_cut >= 1
    nothing = ("lost", "double_jobs", "double_images", "double_charges", "stuck")
    assert {name: figures[name] for name in nothing} == dict.fromkeys(nothing, 0)
    done = {deed.name for deed in house.ledger.deeds}
    assert done >= {name for name in EACH if not name.startswith(("kill", "stop", "drain"))} | {
        "drained"
    }
    assert figures["service_ends"]["kill"] == 2
    assert figures["service_ends"]["term"] == 1


async def test_a_zombie_worker_is_refused(house: ChaosHouse) -> None:
    """Frozen past its lease in the middle of its images; another makes them, it is told so."""
    team = house.fleet.team()
    await house.fleet.grant(team, 4)
    photo = await team.upload(PHOTO.read_bytes())
    house.gemini.reset()
    house.gemini.script(Behaviour(held=True))
    job = await team.make_job(photo, 4)
    await eventually(lambda: _held(house) == 4, timeout_seconds=EVENTS_SECONDS)
    zombie = await eventually(partial(_worker_of, house, job.id), timeout_seconds=EVENTS_SECONDS)
    list(house.fleet.new_logs("zombie"))
    house.fleet.pause(zombie)
    try:
        await eventually(
            lambda: _worker_of(house, job.id) not in {"", zombie}, timeout_seconds=EVENTS_SECONDS
        )
        house.gemini.script()
        house.gemini.release()
    finally:
        house.fleet.resume(zombie)
    seen = await team.watch(job.id)
    requeued = [e for e in seen.events if e.kind == job_pb2.JOB_EVENT_KIND_REQUEUED]
    assert {event.error.reason for event in requeued} == {"WORKER_LOST"}
    # Once, or again where the whole machine stood still for longer than a lease.
    assert seen.job.lost_workers == len(requeued) == seen.kinds().count("STARTED") - 1
    await team.check_done(seen.job)
    await eventually(partial(_was_told, house, zombie), timeout_seconds=EVENTS_SECONDS)
    assert house.fleet.running(zombie)
    await house.fleet.wait_ready(zombie)
    await check_invariants(house.fleet)


def _held(house: ChaosHouse) -> int:
    return sum(call.state == "waiting" for call in house.gemini.calls)


def _worker_of(house: ChaosHouse, job_id: int) -> str:
    """Who has it, by its row."""
    query = "SELECT worker FROM jobs WHERE id = %s AND state = 'RUNNING'"
    with psycopg.connect(house.fleet.dsn("enqueue")) as enqueue:
        row = enqueue.execute(query, [job_id]).fetchone()
    return str(row[0]) if row else ""


def _was_told(house: ChaosHouse, zombie: str) -> bool:
    """It dropped the job as lost."""
    logs = dict(house.fleet.new_logs("zombie"))
    return '"ending": "lost"' in logs[zombie]
