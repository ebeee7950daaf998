"""A gRPC server as every service of ours runs it: limits, access rules, health, reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.protobuf import descriptor, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from contentshop.options.v1 import options_pb2
from libs.common.auth import Authenticator
from libs.common.call_rates import CallRates
from libs.common.interceptors import ServerInterceptor
from libs.common.lifecycle import TaskOwner

log = structlog.get_logger()

MAX_RECEIVE_BYTES = 4 * 1024 * 1024
STREAM_LIFE_MS = 30 * 60 * 1000

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 1000),
    # Thousands of watchers may open at once, after a restart for instance; with the defaults
    # of 1,000 and 3,000 some of them are turned away as CANCELLED.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Proxies drop silent connections: the server pings idle ones, and clients may ping each 30 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_idle_ms", 5 * 60 * 1000),
    ("grpc.max_connection_age_ms", STREAM_LIFE_MS),
    ("grpc.max_connection_age_grace_ms", 5 * 60 * 1000),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of a server; with `client_ca` clients must show a certificate of it (mTLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Reads the files."""
        ca = self.client_ca.read_bytes() if self.client_ca else None
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=ca,
            require_client_auth=ca is not None,
        )


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much one server takes on at once."""

    max_unary: int = 256
    max_streams_per_team: int = 5_000


def service_descriptors(names: Sequence[str]) -> list[descriptor.ServiceDescriptor]:
    """The descriptors of services by full name."""
    pool = descriptor_pool.Default()
    return [pool.FindServiceByName(name) for name in names]


def access_rules(services: Sequence[descriptor.ServiceDescriptor]) -> dict[str, tuple[str, ...]]:
    """Who may call what, read from the options in the protos."""
    rules = {}
    for service in services:
        of_service = service.GetOptions().Extensions[options_pb2.access]
        for method in service.methods:
            of_method = method.GetOptions().Extensions[options_pb2.method_access]
            scopes = of_method.scopes or of_service.scopes
            rules[f"/{service.full_name}/{method.name}"] = tuple(scopes)
    return rules


def request_types(services: Sequence[descriptor.ServiceDescriptor]) -> dict[str, type[Message]]:
    """The request class of every method."""
    return {
        f"/{service.full_name}/{method.name}": message_factory.GetMessageClass(method.input_type)
        for service in services
        for method in service.methods
    }


class GrpcServer:
    """A server component. Stop: health says NOT_SERVING, calls get the grace to end, then none.

    Args:
        services: full names of the services it carries, for access rules and reflection.
        register: adds the servicers to the server.
        address: `host:port`; port 0 takes a free one.
        rates: calls per minute of team callers; None: no limit.
        grace_seconds: how long calls may take to end at stop.
        before_stop: told after health went NOT_SERVING and before calls are ended, so that
            watchers can be sent away with their cursor.
    """

    def __init__(
        self,
        *,
        services: Sequence[str],
        register: Callable[[grpc.aio.Server], None],
        authenticator: Authenticator,
        address: str,
        tls: Tls | None = None,
        limits: ServerLimits | None = None,
        rates: CallRates | None = None,
        reflect: bool = True,
        grace_seconds: float = 5.0,
        before_stop: Callable[[], None] | None = None,
    ) -> None:
        self._services = tuple(services)
        self._register = register
        self._authenticator = authenticator
        self._address = address
        self._tls = tls
        self._limits = limits or ServerLimits()
        self._rates = rates
        self._reflect = reflect
        self._grace = grace_seconds
        self._before_stop = before_stop
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self.interceptor: ServerInterceptor | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens; readiness is set by `set_ready`."""
        descriptors = service_descriptors(self._services)
        self.interceptor = ServerInterceptor(
            authenticator=self._authenticator,
            access=access_rules(descriptors),
            request_types=request_types(descriptors),
            max_unary=self._limits.max_unary,
            max_streams_per_team=self._limits.max_streams_per_team,
            rates=self._rates,
        )
        server = grpc.aio.server(interceptors=[self.interceptor], options=SERVER_OPTIONS)
        self._register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._reflect:
            names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        try:
            if self._tls is None:
                self.port = server.add_insecure_port(self._address)
            else:
                self.port = server.add_secure_port(self._address, self._tls.credentials())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: is the port taken?") from error
        self._server = server
        await self.set_ready(ready=False)
        await server.start()
        log.info("grpc.listening", address=self._address, port=self.port)

    async def set_ready(self, *, ready: bool) -> None:
        """What health answers, for the server and for each of its services."""
        serving = health_pb2.HealthCheckResponse.SERVING
        value = serving if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, value)

    async def stop(self) -> None:
        """NOT_SERVING, then the calls' grace, then none."""
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        if self._before_stop is not None:
            self._before_stop()
        await self._server.stop(self._grace)
        self._server = None


class Readiness:
    """Health that follows its dependencies: checks them each second, and says what changed.

    Args:
        server: whose health it sets.
        checks: name → check; a check raises or answers False when the dependency is away.
    """

    def __init__(
        self,
        server: GrpcServer,
        checks: dict[str, Callable[[], Any]],
        *,
        every_seconds: float = 1.0,
        timeout_seconds: float = 3.0,
    ) -> None:
        self._server = server
        self._checks = checks
        self._every = every_seconds
        self._timeout = timeout_seconds
        self._owner = TaskOwner()
        self._running: dict[str, asyncio.Task[bool]] = {}
        self.missing: tuple[str, ...] | None = None

    async def start(self) -> None:
        """Checks once, then in the background."""
        await self._round()
        self._owner.spawn(self._run(), name="readiness")

    async def stop(self) -> None:
        """Ends the checks."""
        await self._owner.close()

    async def _run(self) -> None:
        while True:
            # Away things come back soon, at a start above all.
            await asyncio.sleep(self._every / 10 if self.missing else self._every)
            await self._round()

    async def _round(self) -> None:
        names = list(self._checks)
        fine = await asyncio.gather(*(self._fine(name) for name in names))
        missing = tuple(name for name, ok in zip(names, fine, strict=True) if not ok)
        if missing == self.missing:
            return
        self.missing = missing
        await self._server.set_ready(ready=not missing)
        log.info("health.changed", ready=not missing, missing=missing)

    async def _fine(self, name: str) -> bool:
        check = self._running.get(name)
        if check is None or check.done():
            check = self._owner.spawn(self._check(name), name=f"readiness.{name}")
            self._running[name] = check
        # A check that is given up may take its time to end (canceling a query does): the word
        # that the dependency is away does not wait for it, and no second check joins it.
        await asyncio.wait({check}, timeout=self._timeout)
        return check.done() and not check.cancelled() and check.result()

    async def _check(self, name: str) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                result = self._checks[name]()
                if asyncio.iscoroutine(result):
                    result = await result
        except Exception:  # noqa: BLE001 - whatever the fault, the dependency is away
            return False
        return result is not False
