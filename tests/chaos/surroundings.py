"""What can be done to what the services live on: broker, database, blobs, wires, Gemini."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import psycopg

from tests.chaos.disturbances import Act, Disturbance
from tests.chaos.house import WORDS, ChaosHouse
from tests.fakes.gemini_behaviours import Behaviour
from tests.support.databases import SERVICES
from tests.support.eventually import eventually
from tests.support.rabbitmq import WATERMARK

DISK_FREE = "50MB"


async def _server_killed(house: ChaosHouse, server: str) -> None:
    """kill -9 of a server, and a new start on its data."""
    one = getattr(house.servers, server)
    await asyncio.to_thread(one.kill)
    try:
        await house.pause_between(0.0, 3.0)
    finally:
        await asyncio.to_thread(one.start)


async def _server_stopped(house: ChaosHouse, server: str) -> None:
    """An orderly restart."""
    await asyncio.to_thread(getattr(house.servers, server).restart)


async def _server_frozen(house: ChaosHouse, server: str) -> None:
    """SIGSTOP of all of its processes, and SIGCONT."""
    one = getattr(house.servers, server)
    one.pause()
    try:
        await house.pause_between(3.0, 12.0)
    finally:
        one.resume()


async def _database_without_space(house: ChaosHouse) -> None:
    """No further file of it can grow, until it is started anew with its disk cleared."""
    postgres = house.servers.postgres
    await asyncio.to_thread(postgres.limit_files, 0)
    try:
        await house.pause_between(2.0, 6.0)
    finally:
        await asyncio.to_thread(postgres.kill)
        await asyncio.to_thread(postgres.start)


async def _alarm(house: ChaosHouse, order: str, on: str, off: str) -> None:
    rabbit = house.servers.rabbit
    await asyncio.to_thread(rabbit.ctl, order, on)
    try:
        await house.pause_between(3.0, 12.0)
    finally:
        await asyncio.to_thread(rabbit.ctl, order, off)


async def queues_of(house: ChaosHouse) -> list[str]:
    """The queues of the fleet's vhost that messages of jobs go through, dead letters apart."""
    rabbit = house.servers.rabbit
    said = await asyncio.to_thread(rabbit.ctl, "list_queues", "-p", house.fleet.bucket, "name")
    taken_in = {"assets.jobs", "packager.jobs"}
    return [line for line in said.split() if line.startswith("jobs.") or line in taken_in]


async def _queues(house: ChaosHouse, order: str) -> None:
    for queue in await queues_of(house):
        await asyncio.to_thread(house.servers.rabbit.ctl, order, "-p", house.fleet.bucket, queue)
    # A queue that is declared anew and dies within 2 s never finds a leader again.
    await asyncio.to_thread(house.servers.rabbit.sync_metadata)


async def _connections_ended(house: ChaosHouse) -> None:
    """pg_terminate_backend of all that one service has."""
    dsn = house.fleet.dsn(house.dice.choice(SERVICES))

    def end() -> None:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as database:
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    await asyncio.to_thread(end)


async def commits_cut(house: ChaosHouse, *, heard: bool) -> None:
    """The next commits are cut: done and not answered, or never heard."""
    wire = house.wires.postgres
    for _ in range(house.dice.randint(2, 5)):
        wire.cut_at(b"COMMIT", after=b"COMMIT", delivered=heard)
        await house.pause_between(0.5, 1.5)
        with suppress(AssertionError):  # so long does nobody commit where all stand still
            await eventually(lambda: not wire.cut_is_due, timeout_seconds=10)
        house.ledger.commits_cut += not wire.cut_is_due


async def _wire(house: ChaosHouse, wire: str, fault: str) -> None:
    proxy = house.wires.all()[wire]
    if fault == "reset":
        proxy.reset()
        return
    if fault == "slow":
        proxy.delay(milliseconds=house.dice.uniform(50, 300))
    elif fault == "truncated":
        proxy.cut_after(house.dice.randint(200, 40_000), "s2c")
    else:
        getattr(proxy, fault)()
    try:
        await house.pause_between(2.0, 8.0 if fault == "slow" else 5.0)
    finally:
        await proxy.heal()


async def _gemini(house: ChaosHouse, *behaviours: Behaviour) -> None:
    """All calls for a while, or the next few, are answered so."""
    house.gemini.script(*behaviours, *WORDS)
    try:
        await house.pause_between(3.0, 10.0)
    finally:
        house.gemini.script(*WORDS)


def _noted(name: str, kind: str, act: Act) -> Act:
    """Written to the ledger, from begin to end."""

    async def do(house: ChaosHouse) -> None:
        with house.ledger.during(name, kind):
            await act(house)

    return do


def _of_servers() -> list[Disturbance]:
    memory = partial(_alarm, order="set_vm_memory_high_watermark", on="0.00000001", off=WATERMARK)
    disk = partial(_alarm, order="set_disk_free_limit", on="5000GB", off=DISK_FREE)
    acts: list[tuple[str, str, Act]] = [
        ("broker killed", "broker", partial(_server_killed, server="rabbit")),
        ("broker stopped", "broker", partial(_server_stopped, server="rabbit")),
        ("broker frozen", "broker", partial(_server_frozen, server="rabbit")),
        ("broker memory alarm", "broker", memory),
        ("broker disk alarm", "broker", disk),
        ("queues purged", "broker", partial(_queues, order="purge_queue")),
        ("queues deleted", "broker", partial(_queues, order="delete_queue")),
        ("database killed", "database", partial(_server_killed, server="postgres")),
        ("database restarted", "database", partial(_server_stopped, server="postgres")),
        ("database frozen", "database", partial(_server_frozen, server="postgres")),
        ("database without space", "database", _database_without_space),
        ("database connections ended", "database", _connections_ended),
        ("blob store killed", "blobs", partial(_server_killed, server="seaweed")),
        ("blob store frozen", "blobs", partial(_server_frozen, server="seaweed")),
    ]
    return [Disturbance(name, kind, _noted(name, kind, act)) for name, kind, act in acts]


def _of_wires() -> list[Disturbance]:
    acts: list[tuple[str, Act, int]] = [
        ("commits cut, and done", partial(commits_cut, heard=True), 6),
        ("commits cut, and not heard", partial(commits_cut, heard=False), 4),
    ]
    for wire in ("postgres", "rabbit", "s3"):
        faults = ["reset", "slow", "drop_c2s", "drop_s2c", "blackhole"]
        faults += ["truncated"] if wire == "s3" else []
        acts += [(f"{wire} {f}", partial(_wire, wire=wire, fault=f), 1) for f in faults]
    return [Disturbance(n, "wire", _noted(n, "wire", act), weight) for n, act, weight in acts]


def _of_gemini() -> list[Disturbance]:
    few = 3
    faults: dict[str, list[Behaviour]] = {
        "429": [Behaviour(kind="error", status=429, retry_delay="1s", times=few)],
        "500": [Behaviour(kind="error", status=500, times=few)],
        "503": [Behaviour(kind="error", status=503, times=few)],
        "hangs": [Behaviour(kind="hang", times=2)],
        "closes": [Behaviour(kind="disconnect", times=few)],
        "cut": [Behaviour(kind="cut", times=few)],
        "garbage": [Behaviour(kind="garbage", times=1)],
        "empty": [Behaviour(kind="empty", times=1)],
        "text only": [Behaviour(kind="text", text="sorry", times=1)],
        "corrupt": [Behaviour(kind="corrupt", times=1)],
        "two images": [Behaviour(kind="image", count=2, times=few)],
        "key revoked": [
            Behaviour(
                kind="error",
                status=400,
                reason="API_KEY_INVALID",
                message="API key not valid. Pass a valid one.",
            )
        ],
    }
    return [
        Disturbance(
            f"gemini {name}",
            "generator",
            _noted(f"gemini {name}", "generator", partial(_said, script=script)),
        )
        for name, script in faults.items()
    ]


async def _said(house: ChaosHouse, script: list[Behaviour]) -> None:
    await _gemini(house, *(Behaviour.from_json(_fields(each)) for each in script))


def _fields(behaviour: Behaviour) -> dict[str, object]:
    """A copy's: `times` counts down in the one that is used."""
    return {name: getattr(behaviour, name) for name in behaviour.__slots__}


OF_SERVERS = tuple(_of_servers())
OF_WIRES = tuple(_of_wires())
OF_GEMINI = tuple(_of_gemini())
