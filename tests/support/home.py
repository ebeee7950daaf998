"""Resources come home: what a module of tests took is given back at its end, by name.

Servers of the session, what libraries keep for good and what others do on this machine are told
apart by name, each with its reason. What is looked at: tasks, threads, descriptors, children,
connections of the database and of the broker, temporary files, and watchers and messages in hand
of houses in this process.

A broker's consumers, unacknowledged messages and exclusive queues belong to a connection, and go
with it: that none is open says all of them, and costs no second of rabbitmqctl.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from aio_pika import Connection as AmqpConnection

from libs.common.broker_memory import MemorySubscription
from services.enqueue.watch.hub import WatchHub as JobHub
from services.packager.watch import WatchHub as ArchiveHub
from tests.support.databases import PostgresTemplates
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.process import ServerProcess
from tests.support.rabbitmq import RabbitServer
from tests.support.seaweed import SeaweedServer

# What is there for as long as the process is, once it is there.
KEPT_THREADS = re.compile(
    r"asyncio_\d+"  # the loop's own pool, 6 at most on 2 cores: threads of it are never given back
    r"|pydevd.*|pytest_timeout .*"  # of who watches us
)
KEPT_DESCRIPTORS = re.compile(
    # gRPC's pollers and wake-ups: it makes them with its first channel or server, and keeps some.
    r"anon_inode:.*"
    r"|/dev/null|/dev/u?random"
)
KEPT_CHILDREN = re.compile(
    r".*multiprocessing\.(resource_tracker|forkserver) .*"  # of Python, until its end
)
ESTABLISHED = "01"
PATIENCE_SECONDS = 30.0

Key = tuple[str, Any]


@dataclass
class Session:
    """What belongs to the whole session: its servers, by whatever processes they are now."""

    postgres: PostgresServer | None = None
    databases: PostgresTemplates | None = None
    rabbit: RabbitServer | None = None
    seaweed: SeaweedServer | None = None

    def pids(self) -> set[int]:
        """Of servers and their watchdogs."""
        found = {pid for each in self._processes() for pid in (each.pid, each._watchdog.pid)}
        if self.seaweed is not None and self.seaweed._process is not None:
            found.add(self.seaweed.pid)
        return found

    def descriptors(self) -> set[str]:
        """The watchdogs' pipes."""
        pipes = [each._watchdog.stdin for each in self._processes()]
        return {_target(pipe.fileno()) for pipe in pipes if pipe is not None and not pipe.closed}

    def folders(self) -> set[str]:
        """Names."""
        return set() if self.seaweed is None else {self.seaweed.folder.name}

    def _processes(self) -> Iterator[ServerProcess]:
        if self.postgres is not None and self.postgres._process is not None:
            yield self.postgres._process
        if self.rabbit is not None:
            yield from filter(None, (self.rabbit._process, self.rabbit._epmd))


class Belongings:
    """What is held now: a word of what it is and its key, and its name for people."""

    def __init__(self, session: Session, folder: Path) -> None:
        """Looks.

        Args:
            session: what is not the module's.
            folder: of all tests' tmp_path.
        """
        self.held: dict[Key, str] = {}
        self._session = session
        self._look_at_tasks()
        self._look_at_threads()
        self._look_at_descriptors()
        self._look_at_children()
        self._look_at_database()
        self._look_at_broker()
        self._look_at_files(folder)

    def beyond(self, before: Belongings) -> list[str]:
        """What is held now and was not then."""
        return sorted(f"{key[0]}: {self.held[key]}" for key in self.held.keys() - before.held)

    def _look_at_tasks(self) -> None:
        current = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not current:
                self.held["task", task] = f"{task.get_name()} {task.get_coro()}"

    def _look_at_threads(self) -> None:
        for thread in threading.enumerate():
            if not KEPT_THREADS.fullmatch(thread.name):
                self.held["thread", thread] = thread.name

    def _look_at_descriptors(self) -> None:
        own = self._session.descriptors()
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a hundred of them, often
            target = _target(int(name))
            if target and target not in own and not KEPT_DESCRIPTORS.fullmatch(target):
                self.held["descriptor", target] = f"{name} → {target}"

    def _look_at_children(self) -> None:
        own = self._session.pids()
        for pid in _children() - own:
            command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
            if not KEPT_CHILDREN.fullmatch(command):
                self.held["child", pid] = f"{pid} {command or _read(f'/proc/{pid}/comm')}"

    def _look_at_database(self) -> None:
        server = self._session.postgres
        if server is None:
            return
        try:
            with psycopg.connect(server.superuser_dsn(), autocommit=True) as connection:
                rows = connection.execute(_SESSIONS).fetchall()
        except psycopg.OperationalError as error:  # a module must start it again
            rows = [(0, f"no answer: {error}")]
        for pid, what in rows:
            self.held["database connection", pid] = what

    def _look_at_broker(self) -> None:
        server = self._session.rabbit
        if server is None:
            return
        # Of any process of ours, so of a fleet's too.
        port = f":{server.port:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if state == ESTABLISHED and remote.endswith(port):
                self.held["broker connection", local] = f"from port {int(local[-4:], 16)}"

    def _look_at_files(self, folder: Path) -> None:
        kept = self._session.folders()
        for name in os.listdir(tempfile.gettempdir()):  # noqa: PTH208 - ours alone
            if name not in kept:
                self.held["temporary file", name] = name
        for pattern in ("*/.tmp/*", "*/*/.tmp/*"):
            for path in folder.glob(pattern):  # blobs that were never finished
                self.held["unfinished blob", path] = str(path)


_SESSIONS = """
SELECT pid, concat_ws(' ', usename, datname, state, left(query, 200))
FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def _target(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a hundred of them, often
    except OSError:
        return ""  # it was the one that the listing itself had open


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _children() -> set[int]:
    """Pids of processes that any thread of ours has started and not yet waited for."""
    threads = Path("/proc/self/task").glob("*/children")
    return {int(pid) for path in threads for pid in _read(str(path)).split()}


def in_houses() -> list[str]:
    """What any house of this process that still is has left open.

    Watchers, subscriptions, messages in hand; and connections of the broker that nobody closed,
    whose sockets may be long gone: their finalizers fail in whatever test then runs.
    """
    hubs, kinds = (JobHub, ArchiveHub), {JobHub, ArchiveHub, MemorySubscription, AmqpConnection}
    found = []
    for thing in [each for each in gc.get_objects() if type(each) in kinds]:
        if isinstance(thing, hubs) and thing.watchers:
            found.append(f"{thing.watchers} watchers: {type(thing).__module__}")
        if isinstance(thing, MemorySubscription) and (thing._unended or not thing._closed):
            found.append(f"subscription: {thing.lane.queue.name}, {len(thing._unended)} in hand")
        if isinstance(thing, AmqpConnection) and not thing.is_closed:
            found.append(f"connection of the broker: {thing}")
    return found


async def comes_home(before: Belongings, session: Session, folder: Path, *, houses: bool) -> None:
    """Waits until nothing is held that was not before; AssertionError with the names of it."""

    def nothing_left() -> bool:
        left = Belongings(session, folder).beyond(before)
        if left:
            gc.collect()  # what only a cycle holds is given back, if late
        assert not left, "\n".join(["not given back:", *left])
        return True

    await eventually(nothing_left, timeout_seconds=PATIENCE_SECONDS)
    if houses:

        def nobody_there() -> bool:
            assert not (there := in_houses()), there
            return True

        await eventually(nobody_there, timeout_seconds=PATIENCE_SECONDS)
