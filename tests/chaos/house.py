"""What chaos happens to: a fleet behind proxies, a Gemini that fails when told, and a ledger."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from tests.fakes.gemini_behaviours import Behaviour
from tests.fakes.gemini_stub import GeminiStub
from tests.support.fleet import CLOCK, Fleet, Routes, Servers, running_fleet
from tests.support.proxy import TcpProxy

KEY = "key-of-the-stub"
SIDE_PIXELS = 64
IMAGE_MS = 4_000  # so that a worker that dies has something in hand
WORKERS = 3
ENQUEUES = 2
DEATH_SECONDS = 20.0  # a crash point that nobody comes by in this time is given up
# Leases, renewals and sweeps as in production, since the time to heal is measured; patience beyond
# it, since no job may end badly for what was done to its surroundings.
SETTINGS = {
    "GENERATOR": "gemini",
    # Places for all that is admitted: the time to heal is measured, and not a queue's.
    "WORKER_SLOTS": "8",
    "GEMINI_API_KEY": KEY,
    "LEASE_SECONDS": "15",
    "SWEEP_SECONDS": "2",
    "MAX_LOST_WORKERS": "100",
    "MAX_ATTEMPTS": "30",
    "WORKER_IMAGE_TIMEOUT_SECONDS": "20",
    "WORKER_PROBE_SECONDS": "5",
    "WORKER_DRAIN_SECONDS": "5",
    "GRACE_SECONDS": "2",
    "HEARTBEAT_SECONDS": "5",
    "ARCHIVE_RING_SECONDS": "5",
    "CONFIRM_SECONDS": "5",
    "ARCHIVE_RINGS": "100",
    "PACKAGER_LEASE_SECONDS": "10",
    "PACKAGER_ATTEMPTS": "100",
    "ASSETS_SWEEP_SECONDS": "2",
    "ASSETS_REMOVAL_SECONDS": "0",
    "CREDIT_CHECK_SECONDS": "30",
}
# What a job's own words bring about; the same for each of its images, whenever they are made.
WORDS = (
    Behaviour(kind="prompt_block", match="words-blocked", reason="SAFETY"),
    Behaviour(kind="finish", match="words-unseen", reason="IMAGE_SAFETY"),
    Behaviour(kind="text", match="words-only", text="no picture today"),
    Behaviour(kind="corrupt", match="words-corrupt"),
    Behaviour(kind="image", match="words-twice", count=2),
)
FAILING_WORDS = {
    "words-blocked": "PROMPT_BLOCKED",
    "words-unseen": "OUTPUT_BLOCKED",
    "words-only": "TEXT_ONLY",
    "words-corrupt": "INVALID_OUTPUT",
}


@dataclass
class Deed:
    """One thing that was done: what, when, and which jobs ran on a worker that it ended."""

    name: str
    kind: str
    at: datetime
    until: datetime | None = None
    victim: str = ""
    jobs: tuple[int, ...] = ()


@dataclass
class Ledger:
    """All that was done, in order."""

    deeds: list[Deed] = field(default_factory=list)
    commits_cut: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # of calls that were repeated, by error

    def open(self, name: str, kind: str, victim: str = "") -> Deed:
        """Notes that something begins."""
        deed = Deed(name, kind, CLOCK.now(), victim=victim)
        self.deeds.append(deed)
        return deed

    @contextmanager
    def during(self, name: str, kind: str) -> Iterator[Deed]:
        """Notes something that lasts."""
        deed = self.open(name, kind)
        try:
            yield deed
        finally:
            deed.until = CLOCK.now()


@dataclass
class Wires:
    """The proxies between the services and their servers."""

    postgres: TcpProxy
    rabbit: TcpProxy
    s3: TcpProxy

    def all(self) -> Mapping[str, TcpProxy]:
        """By name."""
        return {"postgres": self.postgres, "rabbit": self.rabbit, "s3": self.s3}


class ChaosHouse:
    """The fleet and what disturbances need of it.

    Args:
        fleet: whole and ready.
        wires: between it and its servers.
        gemini: what its workers call.
        dice: the seed's.
    """

    def __init__(self, fleet: Fleet, wires: Wires, gemini: GeminiStub, dice: random.Random) -> None:
        self.fleet = fleet
        self.wires = wires
        self.gemini = gemini
        self.dice = dice
        self.haste = 1.0  # of pauses
        self.ledger = Ledger()
        self.names = [
            n for s in ("enqueue", "assets", "packager", "worker") for n in fleet.processes(s)
        ]
        self._held = {name: asyncio.Lock() for name in self.names}
        self.servers_held = asyncio.Lock()  # one server is ill at a time
        self.gemini.script(*WORDS)

    @property
    def servers(self) -> Servers:
        """What the fleet lives on."""
        return self.fleet.servers

    def free(self, *services: str) -> list[str]:
        """Processes of these services that nobody is at."""
        found = [name for service in services for name in self.fleet.processes(service)]
        return [name for name in found if not self._held[name].locked()]

    def hold(self, name: str) -> asyncio.Lock:
        """Who has it may end, freeze and start the process."""
        return self._held[name]

    async def kill(self, name: str, why: str = "kill -9") -> None:
        """SIGKILL; remembers which jobs it ran."""
        deed = self.ledger.open(why, "kill", name)
        if name.startswith("worker"):
            deed.jobs = await self.jobs_of(name)
        deed.at = CLOCK.now()
        await asyncio.to_thread(self.fleet.kill, name)

    async def start(self, name: str, **changes: str) -> None:
        """Starts a process that has ended."""
        await asyncio.to_thread(lambda: self.fleet.restart(name, **changes))

    async def jobs_of(self, worker: str) -> tuple[int, ...]:
        """The jobs a worker runs, by the rows; none where the database does not answer."""

        def read() -> tuple[int, ...]:
            query = "SELECT id FROM jobs WHERE state = 'RUNNING' AND worker = %s"
            try:
                with psycopg.connect(self.fleet.dsn("enqueue"), connect_timeout=2) as enqueue:
                    enqueue.execute("SET statement_timeout = '2s'")
                    return tuple(row[0] for row in enqueue.execute(query, [worker]).fetchall())
            except psycopg.Error:
                return ()

        return await asyncio.to_thread(read)

    async def pause_between(self, least: float, most: float) -> None:
        """Some seconds by the dice."""
        await asyncio.sleep(self.haste * self.dice.uniform(least, most))


@asynccontextmanager
async def chaos_house(
    servers: Servers, dice: random.Random, settings: Mapping[str, str] | None = None
) -> AsyncIterator[ChaosHouse]:
    """A house that is whole."""
    async with AsyncExitStack() as stack:
        gemini = await stack.enter_async_context(
            GeminiStub(api_key=KEY, delay_ms=IMAGE_MS, side_pixels=SIDE_PIXELS)
        )
        s3_host, _, s3_port = servers.seaweed.host.rpartition(":")
        wires = Wires(
            *[
                await stack.enter_async_context(TcpProxy(host, port))
                for host, port in (
                    ("127.0.0.1", servers.postgres.port),
                    ("127.0.0.1", servers.rabbit.port),
                    (s3_host, int(s3_port)),
                )
            ]
        )
        fleet = await stack.enter_async_context(
            running_fleet(
                servers,
                {**SETTINGS, "GEMINI_BASE_URL": gemini.base_url, **(settings or {})},
                workers=WORKERS,
                enqueues=ENQUEUES,
                routes=Routes(wires.postgres.port, wires.rabbit.port, wires.s3.port),
            )
        )
        await asyncio.to_thread(servers.rabbit.sync_metadata)
        yield ChaosHouse(fleet, wires, gemini, dice)
