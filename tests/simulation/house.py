"""All four services, as they are, wired together on a loop without time of its own.

What is real: enqueue, assets, the packager and three workers, with their duties, gateways,
consumers, lease keepers and streams, and a database for each that has one.
What is played: the wires, the broker, the generator and the blob store, which outlives its users.
A node may die at whatever it awaits; a worker may stand still for longer than its lease.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

from contentshop.assets.v1 import assets_pb2
from libs.common import env
from libs.common.auth import Caller
from libs.common.db import Database
from libs.common.errors import ContentshopError
from libs.common.grpc_client import RpcClient
from libs.common.grpc_server import GrpcServer, Readiness
from libs.common.lifecycle import Component, Components
from libs.common.service_app import ServiceApp
from services.assets.app import build as build_assets
from services.assets.settings import Settings as AssetsSettings
from services.enqueue.app import build as build_enqueue
from services.enqueue.gateways import AssetsGateway
from services.enqueue.settings import Settings as EnqueueSettings
from services.packager.app import build as build_packager
from services.packager.settings import Settings as PackagerSettings
from services.worker.app import build as build_worker
from services.worker.settings import Settings as WorkerSettings
from tests.simulation.generator import MARK_BYTES, FatefulGenerator, png
from tests.simulation.inline_sqlite import SqliteFiles, inline_database
from tests.simulation.loop import LoopClock, Node
from tests.simulation.memory_blobs import MemoryBlobs, MemoryZips
from tests.simulation.watcher import Watcher
from tests.simulation.wired_broker import WiredBroker
from tests.simulation.wires import Server, Wires, doors_of
from tests.simulation.world import EVENTS_DAYS, SECRET, Dice, template

LEASE_SECONDS = 15.0
LANE = "image_generation.fast"
KEPT = ("enqueue", "assets", "packager")  # those with a database
SECRETS = {"AUTH_SECRET": SECRET, "SERVICE_SECRET": SECRET, "BLOB_URL": "file:///nowhere"}
ENQUEUE = {
    "TEAMS_WITHOUT_ACCOUNT": "none",
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "RETENTION_EVENTS_DAYS": str(EVENTS_DAYS),
}
# Short enough that a history sees the ends of all of them.
ORPHAN_SECONDS, REMOVAL_SECONDS, ASSETS_SWEEP_SECONDS, UPLOAD_SECONDS = 40, 20, 10, 5
ASSETS = {
    "ASSETS_ORPHAN_SECONDS": str(ORPHAN_SECONDS),
    "ASSETS_REMOVAL_SECONDS": str(REMOVAL_SECONDS),
    "ASSETS_SWEEP_SECONDS": str(ASSETS_SWEEP_SECONDS),
    "ASSETS_UPLOAD_SECONDS": str(UPLOAD_SECONDS),
    "ASSETS_PLACE_SECONDS": "5",
}
WORKER = {"WORKER_LANES": LANE, "WORKER_SLOTS": "2", "WORKER_IMAGE_TIMEOUT_SECONDS": "20"}


class House:
    """The whole; `open` and `close` it, and `restart` nodes that have died."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.clock = LoopClock()
        self.refusals = Counter[str]()
        self.generator = FatefulGenerator(random)
        self.blobs = MemoryBlobs(random, self.clock)
        self.folder = Path(tempfile.mkdtemp(prefix="contentshop-sim-"))
        self.readers: dict[str, sqlite3.Connection] = {}
        for name in KEPT:
            self._path(name).write_bytes(template(name))
            self.readers[name] = sqlite3.connect(self._path(name))
        self.broker = WiredBroker(random, self.clock, self.look)
        self.servers = {name: Server(Node(name)) for name in KEPT}
        self.workers = [Node(f"worker-{n}") for n in (1, 2, 3)]
        self.watchers: list[Watcher] = []
        self._outside = Node("outside")
        self._parts: dict[str, Components] = {}
        Wires.faulty = True

    def look(self, query: str, at: str = "enqueue") -> list[Any]:
        """What is committed in a database."""
        return self.readers[at].execute(query).fetchall()

    async def open(self) -> None:
        """Starts all nodes."""
        for node in self.all_nodes():
            await self.restart(node)

    async def close(self) -> None:
        """Ends all."""
        for node in [self._outside, *self.all_nodes()]:
            await node.crash()
        for reader in self.readers.values():
            reader.close()
        shutil.rmtree(self.folder)

    def all_nodes(self) -> list[Node]:
        """Those that may die."""
        return [*(server.node for server in self.servers.values()), *self.workers]

    def faults(self) -> list[str]:
        """What a service did not expect."""
        return [
            f"{name} failed: {fault!r}"
            for name, server in self.servers.items()
            for fault in server.faults
        ]

    async def restart(self, node: Node) -> None:
        """A new process in place of a dead one."""
        builders = {
            "enqueue": self._enqueue,
            "assets": self._assets,
            "packager": self._packager,
        }
        build = builders.get(node.name, lambda: self._worker(node))

        async def begin() -> None:
            app = build()
            if node.name in self.servers:
                self.servers[node.name].doors = doors_of(app)
            self._parts[node.name] = _parts_of(app)
            await self._parts[node.name].start()

        # A worker is heard at once; who is called, once all of it is there.
        node.up = node in self.workers
        await node.spawn(begin(), name="begin")
        node.up = True

    async def drain(self, node: Node) -> None:
        """SIGTERM."""
        await asyncio.wait({node.spawn(self._parts[node.name].stop(), name="stop")})
        await node.crash()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    def _database(self, name: str) -> tuple[dict[str, str], Database]:
        files = SqliteFiles(self._path(name))
        url = f"sqlite+aiosqlite:///{self._path(name)}"
        self.servers[name].node.on_crash.append(files.drop_all)
        environ = SECRETS | {f"{name.upper()}_DATABASE_URL": url}
        return environ, inline_database(url, self.clock, files)

    def _clients(self, name: str, scope: str) -> Callable[[str], RpcClient]:
        caller = Caller(name, "", frozenset({scope}))
        return lambda to: Wires(self.random, self.servers[to], caller).client()

    def _enqueue(self) -> ServiceApp:
        environ, database = self._database("enqueue")
        return build_enqueue(
            env.load(EnqueueSettings, environ | ENQUEUE),
            clock=self.clock,
            ids=Dice(self.random),
            broker=self.broker.of(self.servers["enqueue"].node),
            database=database,
            resolver=AssetsGateway(self._clients("enqueue", "backend")("assets")),
            embedded=False,
        )

    def _assets(self) -> ServiceApp:
        environ, database = self._database("assets")
        return build_assets(
            env.load(AssetsSettings, environ | ASSETS),
            clock=self.clock,
            ids=Dice(self.random),
            broker=self.broker.of(self.servers["assets"].node),
            database=database,
            blobs=self.blobs,
        )

    def _packager(self) -> ServiceApp:
        environ, database = self._database("packager")
        return build_packager(
            env.load(PackagerSettings, environ),
            clock=self.clock,
            ids=Dice(self.random),
            broker=self.broker.of(self.servers["packager"].node),
            database=database,
            clients=self._clients("packager", "packager"),
            blobs=self.blobs,
            zips=MemoryZips(self.blobs),
        )

    def _worker(self, node: Node) -> ServiceApp:
        environ = SECRETS | WORKER | {"WORKER_NAME": node.name}
        return build_worker(
            env.load(WorkerSettings, environ),
            clock=self.clock,
            ids=Dice(self.random),
            broker=self.broker.of(node),
            generator=self.generator,
            clients=self._clients(node.name, "worker"),
            blobs=self.blobs,
        )

    async def call(self, team: str, scope: str, method: str, request: Any) -> Any:
        """A call of somebody outside; None when it was refused, or nobody answered.

        Args:
            team: whose.
            scope: of the token.
            method: as in `enqueue.EnqueueService/CancelJob`.
            request: one message.
        """
        return await self._told(self._wires(team, scope, method).unary_unary, method, request)

    async def upload(self, team: str) -> Any:
        """A photo of the team, sent to assets; None as above."""
        data = png(self.random.randbytes(MARK_BYTES))
        header = assets_pb2.UploadHeader(
            filename="photo.png", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        )

        async def parts() -> AsyncIterator[assets_pb2.UploadFileRequest]:
            yield assets_pb2.UploadFileRequest(header=header)
            yield assets_pb2.UploadFileRequest(chunk=data[:20])
            yield assets_pb2.UploadFileRequest(chunk=data[20:])

        method = "assets.AssetsService/UploadFile"
        return await self._told(self._wires(team, "team", method).stream_unary, method, parts())

    def watch(self, team: str, job_id: int) -> None:
        """Somebody of the team watches the job from now on, to its end."""
        client = self._wires(team, "team", "enqueue.EnqueueService/WatchJob").client()
        self.watchers.append(Watcher(self.random, client, job_id))
        self._outside.spawn(self.watchers[-1].watch(), name="watcher")

    def _wires(self, team: str, scope: str, method: str) -> Wires:
        server = self.servers[method.partition(".")[0]]
        return Wires(self.random, server, Caller("sim", team, frozenset({scope})))

    async def _told(self, shape: Callable[[str], Any], method: str, request: Any) -> Any:
        package, _, rest = method.partition(".")
        try:
            return await shape(f"/contentshop.{package}.v1.{rest}")(request, timeout=5.0)
        except ContentshopError as error:
            self.refusals[error.reason or type(error).__name__] += 1
            return None


def _parts_of(app: ServiceApp) -> Components:
    """All but what listens to the network."""
    parts: list[Component] = [
        part for part in app._components if not isinstance(part, (GrpcServer, Readiness))
    ]
    return Components(parts)
