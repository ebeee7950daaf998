"""Where the load goes: the embedded house as a process, or a fleet on the real parts."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Protocol

from cli.datafolder import DataFolder
from libs.common.auth import mint_user_token
from libs.common.grpc_client import RpcClient, open_channel
from tests.benchmarks.houses import BenchFleet, fleet, servers
from tests.soak import looking
from tests.support.databases import SERVICES
from tests.support.fleet import CLOCK
from tests.support.fleet_team import FleetTeam
from tests.support.house import House, house

DAY_SECONDS = 86_400
KEPT_SECONDS = 40
_DAYS = f"{KEPT_SECONDS / DAY_SECONDS:.8f}"
# Clean-up keeps pace with a load of minutes, as it does in life with one of months.
SETTINGS = {
    **{
        f"RETENTION_{what}_DAYS": _DAYS
        for what in ("JOBS", "EVENTS", "AUDIT", "KEYS", "GENERATED", "ARCHIVES")
    },
    "RETENTION_SECONDS": "2",
    "SWEEP_SECONDS": "1",
    "ASSETS_SWEEP_SECONDS": "1",
    "ASSETS_PIN_SECONDS": "30",
    "ASSETS_REMOVAL_SECONDS": "5",
    "ASSETS_ORPHAN_SECONDS": "30",
    "ASSETS_RECOUNT_SECONDS": "30",
    "CREDIT_CHECK_SECONDS": "30",
    "HEARTBEAT_SECONDS": "2",
    "CALLS_PER_MINUTE_PER_TEAM": "0",
}
# Two ages are no settings: 30 days of jobs' ends, a day of pins. Their rows are made so old here.
AGED = (("job_endings", "ended_at", 31), ("pins", "expires_at", 2))
STDERR_BYTES = 2**16
EACH_ASKS = 6  # RabbitMQ is asked at every sixth look: that takes a second of a core

# connections, channels, consumers, messages that are delivered and not acknowledged, queues
_RABBIT = """
Info = fun(Q) -> rabbit_amqqueue:info(Q, [messages_unacknowledged, messages, consumers]) end,
All = lists:append([rabbit_amqqueue:list(V) || V <- rabbit_vhost:list_names()]),
Sum = fun(K) -> lists:sum([case proplists:get_value(K, Info(Q)) of N when is_integer(N) -> N;
    _ -> 0 end || Q <- All]) end,
io:format("[~b,~b,~b,~b,~b,~b]", [length(rabbit_networking:connections()),
    length(rabbit_channel:list()), Sum(consumers), Sum(messages_unacknowledged), Sum(messages),
    length(All)]), ok.
"""
_RABBIT_NAMES = (
    "connections rabbit",
    "connections rabbit channels",
    "connections rabbit consumers",
    "messages unacknowledged",
    "messages in queues",
    "files rabbit queues",
)


class Place(Protocol):
    """Something that takes a load and can be looked at."""

    def team(self, name: str) -> FleetTeam:
        """A team's clients."""

    async def look(self) -> dict[str, float]:
        """What it takes up now, by name."""

    async def age(self) -> None:
        """Makes old what no setting makes old."""


class Embedded:
    """`contentshop up`."""

    def __init__(self, running: House, log: Path) -> None:
        self._house = running
        self._log = log
        self._secret = DataFolder(running.data).read_secrets().auth
        self._clients: list[RpcClient] = []

    def team(self, name: str) -> FleetTeam:
        def token() -> str:  # a new one for each call: a run may be longer than a token's life
            return mint_user_token(
                secret=self._secret, issuer="contentshop", team=name, scopes=["team"], clock=CLOCK
            )

        def client(service: str) -> RpcClient:
            made = RpcClient(open_channel(self._house.ready[service]), token)
            self._clients.append(made)
            return made

        return FleetTeam(name, client("assets"), client("enqueue"), client("packager"))

    async def look(self) -> dict[str, float]:
        return await asyncio.to_thread(self._look)

    def _look(self) -> dict[str, float]:
        data = self._house.data
        found = looking.process("up", self._house.process.pid)
        found["files blobs"], found["disk blobs"] = looking.folder(data / "blobs")
        found["files temporary"] = looking.folder(data / "blobs" / ".tmp")[0]
        found["files spool"] = looking.folder(data.parent / "temporary")[0]
        for service in SERVICES:
            file = data / f"{service}.sqlite"
            found[f"disk {service} database"] = looking.size(file)
            found[f"disk {service} wal"] = looking.size(file.with_name(f"{file.name}-wal"))
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
                tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
                for (table,) in database.execute(tables).fetchall():
                    count = f'SELECT count(*) FROM "{table}"'  # noqa: S608 - a table's own name
                    found[f"rows {service}.{table}"] = database.execute(count).fetchone()[0]
        found["log up"] = looking.size(self._log)
        return found

    async def age(self) -> None:
        await asyncio.to_thread(self._age)

    def _age(self) -> None:
        now_us = int(CLOCK.now().timestamp() * 1e6)
        old, fresh = now_us - KEPT_SECONDS * 1_000_000, now_us - DAY_SECONDS * 1_000_000
        with closing(sqlite3.connect(self._house.data / "assets.sqlite", timeout=10)) as database:
            for table, column, days in AGED:
                statement = (
                    f"UPDATE {table} SET {column} = {column} - ? "  # noqa: S608 - our own names
                    f"WHERE {column} < ? AND {column} > ?"
                )
                database.execute(statement, (days * DAY_SECONDS * 1_000_000, old, fresh))
                database.commit()

    async def close(self) -> None:
        """Ends the clients."""
        for client in self._clients:
            await client.close()


@asynccontextmanager
async def embedded() -> AsyncIterator[Place]:
    """A house in a folder of its own; its log is kept while it runs, and shown if it dies."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="contentshop-soak-")))
        temporary = folder / "temporary"
        temporary.mkdir()
        env = {**SETTINGS, "TMPDIR": str(temporary), "LOG_JSON": "yes"}
        running = await stack.enter_async_context(
            house(folder / "data", "--log-level", "info", env=env)
        )
        reading = asyncio.TaskGroup()
        await stack.enter_async_context(reading)
        keeping = reading.create_task(_keep(running.process.stderr, folder / "log"))
        place = Embedded(running, folder / "log")
        try:
            yield place
        finally:
            await place.close()
            keeping.cancel()


async def _keep(stream: asyncio.StreamReader | None, path: Path) -> None:
    """Writes down what comes, so that the pipe never fills."""
    assert stream is not None
    with path.open("ab", buffering=0) as log:
        while data := await stream.read(STDERR_BYTES):
            log.write(data)


class Real:
    """A fleet: PostgreSQL, RabbitMQ, S3, every service a process, two workers."""

    def __init__(self, running: BenchFleet) -> None:
        self._fleet = running
        self._looks = itertools.count()
        self._rabbit: dict[str, float] = {}

    def team(self, name: str) -> FleetTeam:
        return self._fleet.team(name)

    async def look(self) -> dict[str, float]:
        return await asyncio.to_thread(self._look)

    def _look(self) -> dict[str, float]:
        on = self._fleet.servers
        found: dict[str, float] = {}
        for name in self._fleet.names:
            found |= looking.process(name, self._fleet.pid(name))
        for service in SERVICES:
            self._look_at_database(service, found)
        (wal,) = self._fleet.sql("enqueue", "SELECT sum(size)::float8 FROM pg_ls_waldir()")[0]
        found["disk postgres wal"] = wal / looking.MB
        found["disk rabbit"] = looking.folder(on.rabbit._folder / "data")[1]
        objects = list(on.seaweed.client().list_objects(self._fleet.bucket, recursive=True))
        found["files blobs"] = len(objects)
        found["disk blobs"] = sum(each.size or 0 for each in objects) / looking.MB
        found["log all"] = sum(len(self._fleet.log(name)) for name in self._fleet.names) / 1e6
        if next(self._looks) % EACH_ASKS == 0:
            self._rabbit = dict(zip(_RABBIT_NAMES, self._ask_rabbit(), strict=True))
        return found | self._rabbit

    def _ask_rabbit(self) -> list[float]:
        text = self._fleet.servers.rabbit.ctl("eval", " ".join(_RABBIT.split()))
        numbers: list[float] = json.loads(text[text.index("[") : text.index("]") + 1])
        return numbers

    def _look_at_database(self, service: str, found: dict[str, float]) -> None:
        sql = self._fleet.sql
        ((bytes_, connections),) = sql(
            service,
            "SELECT pg_database_size(current_database())::float8, (SELECT count(*) FROM "
            "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())",
        )
        found[f"disk {service} database"] = bytes_ / looking.MB
        found[f"connections postgres {service}"] = connections
        for (table,) in sql(service, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            query = f'SELECT count(*) FROM "{table}"'  # noqa: S608 - a table's own name
            found[f"rows {service}.{table}"] = sql(service, query)[0][0]

    async def age(self) -> None:
        await asyncio.to_thread(self._age)

    def _age(self) -> None:
        for table, column, days in AGED:
            statement = (
                f"UPDATE {table} SET {column} = {column} - interval '{days} days' "  # noqa: S608
                f"WHERE {column} < now() - interval '{KEPT_SECONDS} seconds' "
                f"AND {column} > now() - interval '1 day'"
            )
            self._fleet.sql("assets", statement)


# As busy as with a load of days, in minutes.
_POSTGRES: Mapping[str, str] = {
    "autovacuum_naptime": "5s",
    "checkpoint_timeout": "30s",
    "max_wal_size": "64MB",
}


@asynccontextmanager
async def real() -> AsyncIterator[Place]:
    """A fleet on servers of its own."""
    parts: tuple[Any, ...] = ("enqueue", "assets", "packager", "worker", "worker")
    async with (
        servers(s3=True, postgres_settings=_POSTGRES) as on,
        fleet(on, *parts, s3=True, settings=SETTINGS) as running,
    ):
        yield Real(running)
