"""The whole system as it runs in production: each service a process, between real servers."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import sys
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contentshop.enqueue.v1 import ops_pb2, ops_pb2_grpc
from contentshop.worker.v1 import worker_pb2, worker_pb2_grpc
from libs.common.auth import mint_user_token
from libs.common.clock import SystemClock
from libs.common.grpc_client import ClientTls, RpcClient, open_channel
from tests.support.databases import ROOT, SERVICES, DatabaseUrls, PostgresTemplates
from tests.support.eventually import eventually
from tests.support.fleet_team import CALL_SECONDS, FleetTeam, patiently
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.process import ServerProcess, StartError, server_folder
from tests.support.rabbitmq import RabbitServer
from tests.support.seaweed import SeaweedServer

AUTH_SECRET = "u" * 32
SERVICE_SECRET = "s" * 32
CLOCK = SystemClock()
START_SECONDS = 90.0
TERM_SECONDS = 40.0  # past every grace and drain
LOG_TAIL_CHARS = 6_000
TARGETS = ("assets", "enqueue")  # services that others call


@dataclass(frozen=True)
class Servers:
    """The servers of the session that fleets live on."""

    postgres: PostgresServer
    templates: PostgresTemplates
    rabbit: RabbitServer
    seaweed: SeaweedServer


@dataclass(frozen=True)
class FleetTls:
    """PEM files of one certificate that serves every service, and the CA that signed it."""

    ca: Path
    certificate: Path
    key: Path

    def environ(self) -> dict[str, str]:
        """mTLS between the services."""
        return {
            "TLS_CA": str(self.ca),
            "TLS_CERT": str(self.certificate),
            "TLS_KEY": str(self.key),
            "TLS_CLIENT_CA": str(self.ca),
        }

    def client(self) -> ClientTls:
        """The tests' own side."""
        return ClientTls(self.ca, self.certificate, self.key)


@dataclass(frozen=True)
class Routes:
    """Ports on 127.0.0.1 that stand before a server, a proxy's; 0: its own."""

    postgres: int = 0
    rabbit: int = 0
    s3: int = 0


@dataclass(eq=False)
class _Part:
    """One process: what it is, where it listens, where it logs."""

    name: str
    service: str
    port: int
    log: Path
    changes: Mapping[str, str] = field(default_factory=dict)  # its own settings
    process: ServerProcess | None = None

    @property
    def running(self) -> ServerProcess:
        assert self.process is not None, f"{self.name} was never started"
        return self.process


class Fleet:
    """Service processes on databases, a vhost and a bucket of their own.

    Args:
        servers: what it lives on.
        settings: environment variables for every process, over the defaults below.
        tls: for mTLS everywhere.
        routes: how the processes come to the servers.
        enqueues: how many replicas `start("enqueue")` makes.
    """

    def __init__(
        self,
        servers: Servers,
        settings: Mapping[str, str] | None = None,
        *,
        tls: FleetTls | None = None,
        routes: Routes | None = None,
        enqueues: int = 1,
    ) -> None:
        self.servers = servers
        self._tls = tls
        self._name = f"fleet-{secrets.token_hex(4)}"
        self._folder = server_folder("fleet")
        self.urls: dict[str, DatabaseUrls] = {}
        self._parts: dict[str, _Part] = {}
        self._routes = routes or Routes()
        self._ports: dict[str, list[int]] = {service: [free_port()] for service in SERVICES}
        self._ports["enqueue"] += [free_port() for _ in range(enqueues - 1)]
        self._settings = dict(settings or {})
        self._clients: list[RpcClient] = []
        self._read: dict[tuple[str, str], int] = {}  # bytes, by reader and process
        self._started: dict[str, int] = dict.fromkeys((*SERVICES, "worker"), 0)

    @property
    def bucket(self) -> str:
        """Where its blobs are."""
        return self._name

    def target(self, service: str, caller: str = "") -> str:
        """Where a service is, the same over restarts.

        Of replicas all: gRPC stays with the first that answers. Callers begin with different ones.
        """
        ports = self._ports[service]
        if len(ports) == 1:
            return f"127.0.0.1:{ports[0]}"
        first = zlib.crc32(caller.encode()) % len(ports)
        return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports[first:] + ports[:first])

    def dsn(self, service: str) -> str:
        """libpq URL of the superuser on a service's database."""
        return self.servers.postgres.superuser_dsn(self.urls[service].app.rpartition("/")[2])

    def environ(self, service: str, port: int, name: str) -> dict[str, str]:
        """All of the environment of one process."""
        seaweed, routes = self.servers.seaweed, self._routes
        endpoint = f"http://127.0.0.1:{routes.s3}" if routes.s3 else None
        blob_url = seaweed.blob_url(endpoint).replace(seaweed.bucket, self.bucket, 1)
        common = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
            "AUTH_SECRET": AUTH_SECRET,
            "SERVICE_SECRET": SERVICE_SECRET,
            "BROKER_URL": self.servers.rabbit.amqp_url_of(self._name, port=routes.rabbit or None),
            "BLOB_URL": blob_url,
            **{f"{target.upper()}_TARGET": self.target(target, name) for target in TARGETS},
            f"{service.upper()}_LISTEN": f"127.0.0.1:{port}",
        }
        own: dict[str, str] = self.urls[service].settings(service) if service in self.urls else {}
        if routes.postgres:
            real = f":{self.servers.postgres.port}/"
            own = {key: url.replace(real, f":{routes.postgres}/") for key, url in own.items()}
        if service == "assets":
            own |= {
                "BLOB_ACCESS_KEY": seaweed.access_key,
                "BLOB_SECRET_KEY": seaweed.secret_key,
                "BLOB_CREATE_BUCKET": "yes",
            }
        if service == "worker":
            own["WORKER_NAME"] = name
        tls = self._tls.environ() if self._tls else {}
        return {**common, **own, **tls, **self._settings}

    async def prepare(self, *, migrate: bool) -> None:
        """Makes the vhost and the databases: empty and migrated by `migrate`, or copies."""
        await asyncio.to_thread(self.servers.rabbit.create_vhost, self._name)
        templates = self.servers.templates
        make = templates.empty if migrate else templates.database
        for service in SERVICES:
            self.urls[service] = await asyncio.to_thread(make, service)
        if migrate:
            await self.migrate()

    async def migrate(self, **changes: str) -> None:
        """Runs `migrate` of each service that has a database, with changes to its environment."""
        runs = [
            self._process(
                _Part(f"{service}-migrate", service, 0, self._log(f"{service}-migrate"), changes)
            )
            for service in SERVICES
        ]
        waits = [asyncio.to_thread(run.wait, timeout_seconds=START_SECONDS) for run in runs]
        for error in filter(None, await asyncio.gather(*waits, return_exceptions=True)):
            raise error

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _process(
        self, part: _Part, command: str = "migrate", extra: Mapping[str, str] | None = None
    ) -> ServerProcess:
        environ = self.environ(part.service, part.port, part.name)
        return ServerProcess(
            [sys.executable, "-m", f"services.{part.service}", command],
            folder=self._folder,
            log=part.log,
            env={**environ, **part.changes, **(extra or {})},
        )

    def _spawn(self, part: _Part, extra: Mapping[str, str] | None = None) -> None:
        part.process = self._process(part, "serve", extra)
        self._parts[part.name] = part

    def start(self, service: str, n: int = 1, **changes: str) -> None:
        """Starts a service with all its replicas, or n more workers: `worker-1`, `worker-2`…

        Args:
            service: one of the four.
            n: how many workers.
            changes: environment variables, kept over restarts.
        """
        ports = self._ports.get(service) or [free_port() for _ in range(n)]
        numbered = service == "worker" or len(ports) > 1
        for port in ports:
            self._started[service] += 1
            name = f"{service}-{self._started[service]}" if numbered else service
            self._spawn(_Part(name, service, port, self._log(name), changes))

    def _named(self, name: str) -> list[_Part]:
        """A process by its name, or all of a service."""
        found = [part for part in self._parts.values() if name in {part.name, part.service}]
        assert found, name
        return found

    def running(self, name: str) -> bool:
        """Whether a process has not ended."""
        return all(part.running.running for part in self._named(name))

    def processes(self, service: str) -> list[str]:
        """Their names, of a service."""
        return [part.name for part in self._named(service)]

    def pause(self, name: str) -> None:
        """SIGSTOP of a process."""
        for part in self._named(name):
            part.running.pause()

    def resume(self, name: str) -> None:
        """SIGCONT of what was paused, where it still lives."""
        for part in self._named(name):
            part.running.resume()

    def kill(self, name: str) -> None:
        """SIGKILL of a process, or of all of a service."""
        for part in self._named(name):
            part.running.kill()

    async def terminate(self, name: str) -> None:
        """SIGTERM, and waits for the end."""
        async with asyncio.TaskGroup() as group:
            for part in self._named(name):
                group.create_task(
                    asyncio.to_thread(
                        part.running.end, signal.SIGTERM, timeout_seconds=TERM_SECONDS
                    )
                )

    def restart(self, name: str, **changes: str) -> None:
        """Starts it on the same port, killed first where it runs; changes hold for this run."""
        for part in self._named(name):
            if part.running.running:
                part.running.kill()
            self._spawn(part, changes)

    async def died(self, name: str, *, timeout_seconds: float = 60.0) -> None:
        """Waits for a process to end by itself, as it does at a crash point."""
        await eventually(
            lambda: not self.running(name), timeout_seconds=timeout_seconds, what=f"{name} died"
        )
        self.kill(name)  # its watchdog too

    async def wait_ready(self, *names: str) -> None:
        """Waits until health says SERVING; of all processes that run where none is named."""
        parts = [part for name in names for part in self._named(name)] or [
            part for part in self._parts.values() if part.running.running
        ]
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(self._ready(part))

    async def _ready(self, part: _Part) -> None:
        async with self._channel(f"127.0.0.1:{part.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def serving() -> bool:
                part.running.require_running()
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
                except grpc.aio.AioRpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            await eventually(serving, timeout_seconds=START_SECONDS, what=f"{part.name} ready")

    def _channel(self, target: str) -> grpc.aio.Channel:
        return open_channel(target, self._tls.client() if self._tls else None)

    def token(self, team: str) -> str:
        """A team's token."""
        return mint_user_token(
            secret=AUTH_SECRET, issuer="contentshop", team=team, scopes=["team"], clock=CLOCK
        )

    def team(self, name: str | None = None, *, enqueue: str = "") -> FleetTeam:
        """A team with clients of its own, closed with the fleet; a new team without a name.

        It talks to any enqueue, or to the one that is named.
        """
        name = name or f"team-{secrets.token_hex(3)}"
        token = self.token(name)

        def client(service: str) -> RpcClient:
            target = self.target(service, name)
            if service == "enqueue" and enqueue:
                target = f"127.0.0.1:{self._parts[enqueue].port}"
            made = RpcClient(self._channel(target), lambda: token)
            self._clients.append(made)
            return made

        return FleetTeam(name, client("assets"), client("enqueue"), client("packager"))

    async def grant(self, team: FleetTeam, amount: int) -> None:
        """Gives a team credits, and so an account: its jobs hold, capture and release them."""
        request = ops_pb2.GrantCreditsRequest(
            request_id=secrets.token_hex(8), team=team.name, amount=amount
        )
        async with self._operator(self.target("enqueue")) as client:
            stub = ops_pb2_grpc.OpsServiceStub(client.channel)
            await patiently(
                lambda: client.unary(stub.GrantCredits, request, timeout_seconds=CALL_SECONDS)
            )

    async def limit_model(self, model: str, calls_per_minute: int) -> None:
        """How many calls of a model the governor lets through."""
        request = ops_pb2.SetModelLimitRequest(model=model, calls_per_minute=calls_per_minute)
        async with self._operator(self.target("enqueue")) as client:
            stub = ops_pb2_grpc.OpsServiceStub(client.channel)
            await patiently(
                lambda: client.unary(stub.SetModelLimit, request, timeout_seconds=CALL_SECONDS)
            )

    async def drain(self, worker: str) -> None:
        """Tells a worker to take no further jobs."""
        await self._tell_worker(worker, "DrainWorker", worker_pb2.DrainWorkerRequest())

    async def undrain(self, worker: str) -> None:
        """Tells a worker to take jobs again."""
        await self._tell_worker(worker, "ResumeWorker", worker_pb2.ResumeWorkerRequest())

    async def _tell_worker(self, worker: str, method: str, request: Any) -> None:
        [part] = self._named(worker)
        async with self._operator(f"127.0.0.1:{part.port}") as client:
            call = getattr(worker_pb2_grpc.WorkerServiceStub(client.channel), method)
            await patiently(lambda: client.unary(call, request, timeout_seconds=CALL_SECONDS))

    @asynccontextmanager
    async def _operator(self, target: str) -> AsyncIterator[RpcClient]:
        """A client with the scope `ops`."""
        token = mint_user_token(
            secret=AUTH_SECRET, issuer="contentshop", team="", scopes=["ops"], clock=CLOCK
        )
        client = RpcClient(self._channel(target), lambda: token)
        try:
            yield client
        finally:
            await client.close()

    def new_logs(self, reader: str) -> Iterable[tuple[str, str]]:
        """(name, what each process logged since this reader's last call)."""
        for name, part in self._parts.items():
            with part.log.open("rb") as log:
                log.seek(self._read.get((reader, name), 0))
                text = log.read()
                self._read[reader, name] = log.tell()
            yield name, text.decode(errors="replace")

    def stop(self) -> None:
        """Kills what still runs; databases, vhost and bucket go with their servers."""
        for part in self._parts.values():
            part.running.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()
        await asyncio.to_thread(self.stop)


@asynccontextmanager
async def running_fleet(
    servers: Servers,
    settings: Mapping[str, str] | None = None,
    *,
    workers: int = 1,
    migrate: bool = False,
    tls: FleetTls | None = None,
    routes: Routes | None = None,
    enqueues: int = 1,
) -> AsyncIterator[Fleet]:
    """A fleet with every service ready; its logs are in the error when it does not start."""
    async with Fleet(servers, settings, tls=tls, routes=routes, enqueues=enqueues) as fleet:
        try:
            await fleet.prepare(migrate=migrate)
            for service in SERVICES:
                fleet.start(service)
            if workers:
                fleet.start("worker", n=workers)
            await fleet.wait_ready()
        except (AssertionError, StartError, ExceptionGroup) as error:
            logs = fleet.new_logs("start")
            error.add_note("\n".join(f"{name}:\n{text[-LOG_TAIL_CHARS:]}" for name, text in logs))
            raise
        yield fleet
