"""The four services in one process on one broker, as `contentshop up` has them, on any database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from libs.common import env
from libs.common.auth import mint_user_token, service_tokens
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.grpc_client import RpcClient, open_channel
from libs.common.grpc_server import access_rules, service_descriptors
from libs.common.ids import SystemIds
from libs.common.service_app import ServiceApp
from services.assets import app as assets_app
from services.assets.settings import Settings as AssetsSettings
from services.enqueue import app as enqueue_app
from services.enqueue.settings import Settings as EnqueueSettings
from services.packager import app as packager_app
from services.packager.settings import Settings as PackagerSettings
from services.worker import app as worker_app
from services.worker.settings import Settings as WorkerSettings
from tests.support.databases import SERVICES as DATABASES
from tests.support.databases import DatabaseUrls
from tests.support.fleet_team import FleetTeam

SECRET = "s" * 32
USER_SECRET = "u" * 32
CLOCK = SystemClock()
UPLOAD_HOST = "shop.example"
CALL_SECONDS = 30.0

Headers = Sequence[tuple[str, str]]

_BUILDS: dict[str, tuple[type[Any], Callable[..., ServiceApp]]] = {
    "assets": (AssetsSettings, assets_app.build),
    "enqueue": (EnqueueSettings, enqueue_app.build),
    "packager": (PackagerSettings, packager_app.build),
    "worker": (WorkerSettings, worker_app.build),
}
CARRIED = {
    "assets": assets_app.SERVICES,
    "enqueue": enqueue_app.SERVICES,
    "packager": packager_app.SERVICES,
    "worker": worker_app.SERVICES,
}


@dataclass(frozen=True)
class Method:
    """One RPC: where it is served and who may call it."""

    server: str
    service: ServiceDescriptor
    descriptor: MethodDescriptor
    scopes: tuple[str, ...]

    @property
    def path(self) -> str:
        """As gRPC calls it."""
        return f"/{self.service.full_name}/{self.descriptor.name}"

    @property
    def name(self) -> str:
        """`EnqueueService.GetJob`."""
        return f"{self.service.name}.{self.descriptor.name}"


def all_methods() -> list[Method]:
    """Every RPC of every service, from the descriptors."""
    found = []
    for server, names in CARRIED.items():
        for service in service_descriptors(names):
            rules = access_rules([service])
            found += [
                Method(server, service, method, rules[f"/{service.full_name}/{method.name}"])
                for method in service.methods
            ]
    return found


METHODS = all_methods()


@dataclass(frozen=True)
class Answer:
    """All that came over the wire: messages, the status, and the metadata at the end."""

    code: str
    message: str
    metadata: tuple[tuple[str, str | bytes], ...]
    messages: tuple[bytes, ...]


def bearer(token: str) -> Headers:
    """The header of a token."""
    return (("authorization", f"Bearer {token}"),)


def user_token(*scopes: str, team: str = "red", life_seconds: float = 3600.0) -> str:
    """A user token; of a negative life it has run out."""
    return mint_user_token(
        secret=USER_SECRET,
        issuer="contentshop",
        team=team,
        scopes=scopes,
        clock=CLOCK,
        life=timedelta(seconds=life_seconds),
    )


def service_token(scope: str, target: str) -> str:
    """A service token for calls to a service."""
    source = service_tokens(secret=SECRET, subject="tests", target=target, scope=scope, clock=CLOCK)
    return source()


def headers_for(method: Method, team: str = "red") -> Headers:
    """Headers of a caller who may call the method."""
    scope = method.scopes[0]
    if scope == "team":
        return bearer(user_token("team", team=team))
    if scope == "ops":
        return bearer(user_token("ops", team=""))
    return bearer(service_token(scope, method.server))


@dataclass
class House:
    """The running services and what tests call them with."""

    urls: Mapping[str, DatabaseUrls]
    apps: dict[str, ServiceApp] = field(default_factory=dict)
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    clients: list[RpcClient] = field(default_factory=list)

    async def call(self, method: Method, body: bytes, headers: Headers) -> Answer:
        """One call with one message; a stream is left after its first answer."""
        channel = self.channels[method.server]
        metadata = tuple(headers)
        shape = method.descriptor
        call: Any
        if shape.client_streaming:
            open_many: Any = channel.stream_unary(method.path)
            call = open_many(iter([body]), metadata=metadata, timeout=CALL_SECONDS)
        elif shape.server_streaming:
            open_stream: Any = channel.unary_stream(method.path)
            call = open_stream(body, metadata=metadata, timeout=CALL_SECONDS)
        else:
            open_one: Any = channel.unary_unary(method.path)
            call = open_one(body, metadata=metadata, timeout=CALL_SECONDS)
        messages: list[bytes] = []
        try:
            if not shape.server_streaming:
                messages.append(bytes(await call))
            else:
                first = await call.read()
                if first is not grpc.aio.EOF:
                    messages.append(bytes(first))
                    call.cancel()
                    return Answer("OK", "", (), tuple(messages))
            code, message = await call.code(), await call.details()
            trailers = await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            code, message = error.code(), error.details()
            trailers = error.trailing_metadata()
        found = tuple(sorted((str(key), value) for key, value in trailers or ()))
        return Answer(code.name, message or "", found, tuple(messages))

    def team(self, name: str) -> FleetTeam:
        """A team's clients, closed with the house."""
        token = user_token("team", team=name)

        def client(service: str) -> RpcClient:
            target = f"127.0.0.1:{self.apps[service].port}"
            made = RpcClient(open_channel(target), lambda: token)
            self.clients.append(made)
            return made

        return FleetTeam(name, client("assets"), client("enqueue"), client("packager"))


@asynccontextmanager
async def open_house(
    urls: Mapping[str, DatabaseUrls], folder: Path, **settings: str
) -> AsyncIterator[House]:
    """A running house; `settings` are environment variables for all services."""
    broker = MemoryBroker(clock=CLOCK, ids=SystemIds())
    await broker.start()
    environ = {
        "AUTH_SECRET": USER_SECRET,
        "SERVICE_SECRET": SECRET,
        "BLOB_URL": (folder / "blobs").as_uri(),
        "ASSETS_UPLOAD_HOSTS": UPLOAD_HOST,
        "SWEEP_SECONDS": "0.2",
        "PACKAGER_SWEEP_SECONDS": "0.2",
        "RETENTION_SECONDS": "0.2",
        "GRACE_SECONDS": "0.5",
        "GENERATOR": "offline",
        **settings,
    }
    for service in DATABASES:
        environ |= urls[service].settings(service)
    house = House(urls)
    try:
        for service, (settings_class, build) in _BUILDS.items():
            environ[f"{service.upper()}_LISTEN"] = "127.0.0.1:0"
            app = build(env.load(settings_class, environ), broker=broker)
            await app.start()
            house.apps[service] = app
            environ[f"{service.upper()}_TARGET"] = f"127.0.0.1:{app.port}"
            house.channels[service] = open_channel(f"127.0.0.1:{app.port}")
        yield house
    finally:
        for client in house.clients:
            await client.close()
        for channel in house.channels.values():
            await channel.close()
        for app in reversed(house.apps.values()):
            await app.stop()
        await broker.close()
