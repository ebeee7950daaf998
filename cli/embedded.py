"""The embedded house: every service built by its own app.py, in one process, on one broker.

The services are the very ones of production and speak real gRPC to each other; only their
seams are the embedded ones: SQLite files, file blobs, and a broker in memory that they share.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.text import Text

from cli.connection import ISSUER, cli_settings, data_folder
from cli.datafolder import SERVICES, DataFolder, Endpoints, Secrets
from cli.errors import CliError, ExitCode
from cli.output import Output
from libs.common import env, logs
from libs.common.broker import Broker
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.env import SettingsError
from libs.common.grpc_client import open_channel
from libs.common.ids import SystemIds
from libs.common.lifecycle import Components, Owned, run_until_signal
from libs.common.service_app import ServiceApp
from services.assets import app as assets_app
from services.assets.settings import Settings as AssetsSettings
from services.enqueue import app as enqueue_app
from services.enqueue.settings import Settings as EnqueueSettings
from services.packager import app as packager_app
from services.packager.settings import Settings as PackagerSettings
from services.worker import app as worker_app
from services.worker.settings import Settings as WorkerSettings

HOST = "127.0.0.1"
READY_SECONDS = 30.0
READY_POLL_SECONDS = 0.02


Build = Callable[..., ServiceApp]

# In the order they start; each finds those before it by their port, and they stop in reverse.
_HOUSES: tuple[tuple[str, type[Any], Build, Callable[[Any], None] | None], ...] = (
    ("assets", AssetsSettings, assets_app.build, assets_app.migrate),
    ("enqueue", EnqueueSettings, enqueue_app.build, enqueue_app.migrate),
    ("packager", PackagerSettings, packager_app.build, packager_app.migrate),
    ("worker", WorkerSettings, worker_app.build, None),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HouseOptions:
    """What `up` is asked for; see its options."""

    port_base: int
    generator: str
    log_level: str
    stop_on_eof: bool = False

    def address(self, service: str) -> str:
        """Where a service is to listen."""
        port = self.port_base + SERVICES.index(service) if self.port_base else 0
        return f"{HOST}:{port}"


def run_house(data: Path | None, options: HouseOptions, output: Output) -> ExitCode:
    """Runs the house until SIGTERM or SIGINT.

    Raises:
        CliError: the folder is in use, a port is taken, or a setting is wrong.
    """
    folder = data_folder(data, cli_settings())
    with folder.held():
        folder.check_whole()
        _check_ports(options)
        folder.remove_endpoints()  # of one that was killed
        given = house_environ(folder, folder.make_secrets(), options, env.process_environ())
        settings = {name: _settings(cls, given) for name, cls, *_ in _HOUSES}
        logs.configure("up", level=options.log_level, json=settings["enqueue"].log_json)
        for name, _, _, migrate in _HOUSES:
            if migrate is not None:
                migrate(settings[name])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(_serve(folder, settings, given, options, output))
            except SystemExit:
                # The second signal: nothing is waited for, as little as after a kill -9.
                os._exit(ExitCode.INTERRUPTED)
    output.note("contentshop has stopped")
    return ExitCode.OK


def _check_ports(options: HouseOptions) -> None:
    """Looks before gRPC does, which complains in its own words."""
    for service in SERVICES:
        host, _, port = options.address(service).partition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                raise CliError(
                    f"{service} cannot listen on {host}:{port}: {error.strerror}",
                    ExitCode.REFUSED,
                    hint="Choose other ports with --port-base; 0 takes free ones.",
                    reason="PORT_TAKEN",
                ) from None


def house_environ(
    folder: DataFolder, secrets: Secrets, options: HouseOptions, environ: Mapping[str, str]
) -> dict[str, str]:
    """The environment with the seams of the embedded house set, whatever it said of them."""
    root = folder.path.resolve()
    seams = {
        "SERVICE_SECRET": secrets.service,
        "AUTH_SECRET": secrets.auth,
        "AUTH_JWKS": "",
        "AUTH_ISSUER": ISSUER,
        "BROKER_URL": "memory://",
        "BLOB_URL": (root / "blobs").as_uri(),
        "GENERATOR": options.generator,
        "LOG_JSON": environ.get("LOG_JSON", "no"),
        **{f"TLS_{name}": "" for name in ("CERT", "KEY", "CLIENT_CA", "CA")},
    }
    for service in SERVICES:
        prefix = service.upper()
        seams[f"{prefix}_LISTEN"] = options.address(service)
        seams[f"{prefix}_DATABASE_URL"] = f"sqlite+aiosqlite:///{root / service}.sqlite"
        seams[f"{prefix}_DUTY_DATABASE_URL"] = ""
        seams[f"{prefix}_OWNER_DATABASE_URL"] = ""
    return {**environ, **seams}


def house_settings(
    folder: DataFolder, secrets: Secrets, options: HouseOptions, environ: Mapping[str, str]
) -> dict[str, Any]:
    """The settings of each service in that environment."""
    given = house_environ(folder, secrets, options, environ)
    return {name: _settings(cls, given) for name, cls, *_ in _HOUSES}


def _settings(cls: type[Any], environ: Mapping[str, str]) -> Any:
    try:
        return env.load(cls, environ)
    except SettingsError as error:
        raise CliError("; ".join(error.problems), ExitCode.USAGE, reason="SETTINGS") from None


async def _serve(
    folder: DataFolder,
    settings: Mapping[str, Any],
    environ: Mapping[str, str],
    options: HouseOptions,
    output: Output,
) -> None:
    broker = MemoryBroker(clock=SystemClock(), ids=SystemIds())
    targets: dict[str, str] = {}
    services = [
        _Service(name, cls, build, environ=environ, targets=targets, broker=broker)
        for name, cls, build, _ in _HOUSES
    ]
    sign = _ReadySign(folder, targets, settings["worker"].generator, output)
    if options.stop_on_eof:
        asyncio.get_running_loop().add_reader(sys.stdin, _stop_at_eof)
    await run_until_signal(Components([Owned(broker), *services, sign]))


def _stop_at_eof() -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin)
        os.kill(os.getpid(), signal.SIGTERM)


class _Service:
    """One service, built when its turn comes: only then are the others' ports known."""

    def __init__(
        self,
        name: str,
        settings_class: type[Any],
        build: Build,
        *,
        environ: Mapping[str, str],
        targets: dict[str, str],
        broker: Broker,
    ) -> None:
        self._name = name
        self._settings_class = settings_class
        self._build = build
        self._environ = environ
        self._targets = targets
        self._broker = broker
        self._app: ServiceApp | None = None

    async def start(self) -> None:
        """Builds and starts it, and says where it listens."""
        known = {f"{name.upper()}_TARGET": target for name, target in self._targets.items()}
        settings = env.load(self._settings_class, {**self._environ, **known})
        self._app = self._build(settings, broker=self._broker)
        await self._app.start()
        self._targets[self._name] = f"{HOST}:{self._app.port}"

    async def stop(self) -> None:
        """Stops it, if it was built."""
        if self._app is not None:
            await self._app.stop()


class _ReadySign:
    """Comes last: waits until all services serve, and tells the other commands where."""

    def __init__(
        self, folder: DataFolder, targets: Mapping[str, str], generator: str, output: Output
    ) -> None:
        self._folder = folder
        self._targets = targets
        self._generator = generator
        self._output = output

    async def start(self) -> None:
        """Puts the sign up."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                for name in SERVICES:
                    await _until_serving(self._targets[name])
        except TimeoutError:
            raise CliError(
                f"{name} was not ready within {READY_SECONDS:.0f} s",
                ExitCode.UNAVAILABLE,
                reason="NOT_READY",
            ) from None
        endpoints = Endpoints(pid=os.getpid(), generator=self._generator, **self._targets)
        self._folder.write_endpoints(endpoints)
        self._show(endpoints)

    def _show(self, endpoints: Endpoints) -> None:
        say = self._output.say
        say(
            Text("contentshop is ready", style="bold green").append(
                f"  data in {self._folder.path}, generator {self._generator}", style="not bold"
            )
        )
        for name in SERVICES:
            say(Text(f"  {name:<9}", style="dim").append(self._targets[name], style="not dim"))
        say(Text("  Ctrl-C stops it.", style="dim"))
        self._output.result({"ready": True, "data": str(self._folder.path), **asdict(endpoints)})

    async def stop(self) -> None:
        """Takes it down before anything stops."""
        self._folder.remove_endpoints()
        self._output.note("stopping; images in flight are finished first, Ctrl-C again ends it now")


async def _until_serving(target: str) -> None:
    async with open_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError:
                answer = None
            if answer is not None and answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            await asyncio.sleep(READY_POLL_SECONDS)
