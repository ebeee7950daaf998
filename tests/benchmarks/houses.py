"""The servers of one run, fleets on them, and the load generators."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import psycopg

from libs.common.env import process_environ
from tests.benchmarks.machine import ROOT, cpu_seconds
from tests.support.databases import PostgresTemplates
from tests.support.fleet import Fleet, Servers, _Part
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.process import ServerProcess, StartError
from tests.support.rabbitmq import RabbitServer
from tests.support.seaweed import SeaweedServer

LOG_CHARS = 4_000  # shown of each process when a measure fails
ANSWER_BYTES = 2**26  # thousands of times are one line
# Who acts as a worker by RPCs renews nothing.
LONG_LEASE = {"LEASE_SECONDS": "600"}
TEAMS = [f"team-{number}" for number in range(16)]


@asynccontextmanager
async def servers(
    *, s3: bool, postgres_settings: Mapping[str, str] | None = None
) -> AsyncIterator[Servers]:
    """PostgreSQL with fsync and commit times, RabbitMQ and, if wanted, S3; gone at the end."""
    # Commit times say when a transaction began to be durable, which no client can see.
    settings = {"track_commit_timestamp": "on", **(postgres_settings or {})}
    postgres = PostgresServer(fsync=True, settings=settings)
    rabbit, seaweed = RabbitServer(), SeaweedServer()
    try:
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(asyncio.to_thread(postgres.start))
            group.create_task(asyncio.to_thread(rabbit.start))
            if s3:
                group.create_task(asyncio.to_thread(seaweed.start))
            await starting
            templates = await asyncio.to_thread(PostgresTemplates, postgres)
        yield Servers(postgres, templates, rabbit, seaweed)
    finally:
        for server in (postgres, rabbit, seaweed):
            await asyncio.to_thread(server.close)


class BenchFleet(Fleet):
    """A fleet with more processes than one of each, and their cost."""

    @property
    def folder(self) -> Path:
        """The fleet's own, gone with it."""
        return self._folder

    @property
    def amqp_url(self) -> str:
        """Of its own vhost."""
        return self.servers.rabbit.amqp_url_of(self._name)

    def run_echo(self) -> str:
        """The bare gRPC server, by the name `echo`; where it listens."""
        port = free_port()
        return self.run("echo", "bench", "tests.benchmarks.echo", str(port), port=port)

    def run(self, name: str, service: str, *argv: str | Path, port: int = 0, **changes: str) -> str:
        """Starts a further process of a service, or any program as one; where it listens."""
        port = port or free_port()
        part = _Part(name, service, port, self._log(name))
        part.process = ServerProcess(
            [sys.executable, "-m", *(argv or (f"services.{service}",))],
            folder=self._folder,
            log=part.log,
            env={**self.environ(service, port, name), **changes},
        )
        self._parts[name] = part
        return f"127.0.0.1:{port}"

    def run_worker(self, name: str, *, delay_ms: int, **changes: Any) -> str:
        """A worker whose generator takes so long; its calls are in calls.txt."""
        argv = ("tests.benchmarks.zero_worker", str(delay_ms), self.folder / "calls.txt")
        return self.run(name, "worker", *argv, **changes)

    def calls(self) -> list[str]:
        """`job index` of every generator call of its workers so far."""
        path = self.folder / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def names(self) -> list[str]:
        """All processes it has started."""
        return list(self._parts)

    def pid(self, name: str) -> int:
        """Of a process."""
        return self._parts[name].running.pid

    def log(self, name: str) -> str:
        """What a process has said."""
        return self._parts[name].log.read_text(errors="replace")

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each process that runs."""
        parts = self._parts.items()
        return {n: cpu_seconds(p.running.pid) for n, p in parts if p.running.running}

    def sql(self, service: str, query: str, *args: Any) -> list[tuple[Any, ...]]:
        """Rows, as superuser."""
        with psycopg.connect(self.dsn(service), autocommit=True) as connection:
            cursor = connection.execute(query, args or None)
            return cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def fleet(
    on: Servers, *services: str, s3: bool = False, settings: Mapping[str, str] | None = None
) -> AsyncIterator[BenchFleet]:
    """A fleet with these services ready, its blobs in its folder or on S3."""
    async with AsyncExitStack() as stack:
        made = BenchFleet(on, settings)
        if not s3:
            made._settings["BLOB_URL"] = (made.folder / "blobs").as_uri()
        # What is measured is how fast it is, not how fast a team may call it.
        made._settings.setdefault("CALLS_PER_MINUTE_PER_TEAM", "0")
        await stack.enter_async_context(made)
        await made.prepare(migrate=False)
        try:
            for service in services:
                made.start(service)
            await made.wait_ready()
            yield made
        except (AssertionError, RuntimeError, StartError) as error:
            error.add_note(
                "\n".join(f"{name}:\n{made.log(name)[-LOG_CHARS:]}" for name in made.names)
            )
            raise


class Loader:
    """A load generator process."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def ask(self, scenario: str, **args: Any) -> Any:
        """Has it do something; its result. RuntimeError with its traceback."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"scenario": scenario, **args}).encode() + b"\n")
        line = await self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "it died"}
        if "error" in answer:
            raise RuntimeError(f"{scenario}: {answer['error']}")
        return answer["result"]

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.benchmarks.load"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**process_environ(), "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"},
            limit=ANSWER_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
