"""Wake-ups: hints that jobs have new events, and that workers must stop jobs.

A wake-up goes to the watchers of this process at once, and to other replicas by PostgreSQL's
LISTEN/NOTIFY, sent after the commit on a connection of its own: a NOTIFY inside the transaction
would make all commits wait for one another. It may be lost with the process; the hub's sweep is
the floor. See docs/decisions/0005-wake-ups.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import psycopg
import structlog
from sqlalchemy.engine import make_url

from libs.common.backoff import Backoff
from libs.common.ids import Ids
from libs.common.lifecycle import TaskOwner

log = structlog.get_logger()

CHANNEL = "contentshop_enqueue"
MAX_PAYLOAD_BYTES = 7_500  # PostgreSQL takes less than 8,000
PING_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Stop:
    """A claim that a worker must stop working on."""

    worker: str
    job_id: int
    fence: int


class Changed(NamedTuple):
    """A job with new events: enough to find its watchers, its batch's and its team's."""

    job_id: int
    team: str
    batch_id: int = 0


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Jobs with new events, and claims to stop. `all_jobs`: some hints may have been lost."""

    jobs: tuple[Changed, ...] = ()
    stops: tuple[Stop, ...] = ()
    all_jobs: bool = False


Listener = Callable[[WakeUp], None]


class Wakeups(Protocol):
    """Where use cases say what has changed, once it is committed."""

    def notify(self, wake_up: WakeUp) -> None:
        """Tells every listener of every replica, soon; never blocks, never fails."""
        ...


class LocalWakeups:
    """Tells the listeners of this process; enough where there is one process."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Adds a listener; it is called on the event loop and must not block."""
        self._listeners.append(listener)

    def mute(self) -> None:
        """Forgets the listeners: every later wake-up is lost (for tests of the floor)."""
        self._listeners.clear()

    def notify(self, wake_up: WakeUp) -> None:
        """Tells the listeners at once."""
        for listener in self._listeners:
            listener(wake_up)

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""


class PostgresWakeups(LocalWakeups):
    """Tells the listeners of every replica on the same database.

    Args:
        url: SQLAlchemy URL of the duty role.
        origin: this process's own name, so that it does not hear itself twice.
        ids: jitter.
    """

    def __init__(self, url: str, *, origin: str, ids: Ids) -> None:
        super().__init__()
        parsed = make_url(url).set(drivername="postgresql")
        self._dsn = parsed.render_as_string(hide_password=False)
        self._origin = origin
        self._ids = ids
        self._pending: set[Changed] = set()
        self._stops: set[Stop] = set()
        self._wake = asyncio.Event()
        self._owner = TaskOwner()
        self._backoff = Backoff(first_seconds=0.1, max_seconds=2.0)

    def notify(self, wake_up: WakeUp) -> None:
        """Tells this process at once, the others in the next batch."""
        super().notify(wake_up)
        self._pending.update(wake_up.jobs)
        self._stops.update(wake_up.stops)
        self._wake.set()

    async def start(self) -> None:
        """Begins to send and to hear."""
        self._owner.spawn(self._supervise(self._send), name="wakeups.send")
        self._owner.spawn(self._supervise(self._hear), name="wakeups.hear")

    async def stop(self) -> None:
        """Ends both."""
        await self._owner.close()

    async def _supervise(self, work: Callable[[psycopg.AsyncConnection], object]) -> None:
        failures = 0
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._dsn, autocommit=True, connect_timeout=2
                )
                async with connection:
                    failures = 0
                    await work(connection)  # type: ignore[misc]  # a coroutine function
            except (psycopg.Error, OSError, TimeoutError) as error:
                failures += 1
                log.warning("wakeups.connection_lost", error=type(error).__name__)
            await asyncio.sleep(self._backoff.wait(failures, self._ids))

    async def _send(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            jobs, self._pending = self._pending, set()
            stops, self._stops = self._stops, set()
            for payload in _payloads(self._origin, sorted(jobs), list(stops)):
                await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))

    async def _hear(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        # What was said while nobody listened is lost: look at everything once.
        super().notify(WakeUp(all_jobs=True))
        while True:
            async for notice in connection.notifies(timeout=PING_SECONDS):
                self._heard(notice.payload)
            await connection.execute("SELECT 1")  # finds a dead connection

    def _heard(self, payload: str) -> None:
        said = json.loads(payload)
        if said["from"] != self._origin:
            stops = tuple(Stop(*stop) for stop in said["stops"])
            super().notify(WakeUp(tuple(Changed(*job) for job in said["jobs"]), stops))


def _payloads(origin: str, jobs: Sequence[Changed], stops: Sequence[Stop]) -> list[str]:
    """The batch as few payloads, none longer than PostgreSQL takes."""
    payload = json.dumps(
        {"from": origin, "jobs": jobs, "stops": [[s.worker, s.job_id, s.fence] for s in stops]},
        separators=(",", ":"),
    )
    if len(payload) <= MAX_PAYLOAD_BYTES or len(jobs) + len(stops) <= 1:
        return [payload]
    j, s = (len(jobs) + 1) // 2, (len(stops) + 1) // 2
    return _payloads(origin, jobs[:j], stops[:s]) + _payloads(origin, jobs[j:], stops[s:])
