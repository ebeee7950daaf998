"""enqueue and three workers, as they are, wired together on a loop without time of its own.

What is real: both services with their duties, gateways, consumers, lease keepers and streams.
What is played: the wires, the broker, the generator, assets' two calls, and the packager.
A node may die at whatever it awaits, stand still for longer than its lease, and come back.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from contentshop.assets.v1 import backend_pb2
from contentshop.enqueue.v1 import messages_pb2
from libs.common import env
from libs.common.auth import Caller
from libs.common.errors import ContentshopError
from libs.common.grpc_server import GrpcServer, Readiness
from libs.common.lifecycle import Component, Components
from libs.common.outcomes import Outcome
from libs.common.service_app import ServiceApp
from services.enqueue.app import SERVICES, build
from services.enqueue.settings import Settings
from services.worker.app import build as build_worker
from services.worker.domain import GeneratedImage, GenerationError, ImageRequest, Usage
from services.worker.settings import Settings as WorkerSettings
from tests.simulation.inline_sqlite import SqliteFiles, inline_database
from tests.simulation.loop import LoopClock, Node
from tests.simulation.wired_broker import WiredBroker
from tests.simulation.wires import Server, Wires
from tests.simulation.world import EVENTS_DAYS, SECRET, Dice, Resolver, template

LEASE_SECONDS = 15.0
LANE = "image_generation.fast"
INPUT = b"an input"


class FatefulGenerator:
    """Makes images of a few bytes, or fails as providers do."""

    name = "fateful"

    def __init__(self, random: Random) -> None:
        self._random = random
        self.faulty = True
        self.calls = Counter[str]()

    def model_for(self, quality: str) -> str:
        """One model, governed."""
        return f"sim-{quality}"

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        """An image, after a while."""
        fate = self._random.random() if self.faulty else 1.0
        await asyncio.sleep(self._random.uniform(0.1, 4.0))
        for share, outcome in _FATES:
            if fate < share:
                self.calls[outcome.value] += 1
                raise GenerationError(outcome, "no")
        if fate < 0.2:  # noqa: PLR2004
            self.calls["hung"] += 1
            await asyncio.sleep(3600.0)
        self.calls["made"] += 1
        data = f"{request.job_id}/{request.index}/{self._random.random()}".encode()
        return GeneratedImage(data, "image/png", "sim-fast", Usage(1, 2, 3))

    async def enhance(self, prompt: str) -> str:
        """Never asked."""
        raise NotImplementedError(prompt)

    async def close(self) -> None:
        """Nothing to close."""


_FATES = (
    (0.04, Outcome.RATE_LIMITED),
    (0.08, Outcome.OVERLOADED),
    (0.11, Outcome.OUTPUT_BLOCKED),
    (0.13, Outcome.NO_IMAGE),
    (0.15, Outcome.TEXT_ONLY),
)


class PlayedAssets:
    """Two calls of assets: every upload is there, and the first image of a slot stays."""

    def __init__(self) -> None:
        self.slots: dict[tuple[int, int], backend_pb2.ResolvedImage] = {}

    async def ResolveImages(  # noqa: N802 - as in the contract
        self, request: backend_pb2.ResolveImagesRequest, _context: Any
    ) -> backend_pb2.ResolveImagesResponse:
        """Facts."""
        await asyncio.sleep(0)
        return backend_pb2.ResolveImagesResponse(
            images=[_facts(ref.file_id, INPUT) for ref in request.refs]
        )

    async def StoreGenerated(  # noqa: N802 - as in the contract
        self, request_iterator: Any, _context: Any
    ) -> backend_pb2.StoreGeneratedResponse:
        """First come."""
        parts = [part async for part in request_iterator]
        slot = (parts[0].header.job_id, parts[0].header.image_index)
        already = slot in self.slots
        data = b"".join(part.chunk for part in parts[1:])
        image = self.slots.setdefault(slot, _facts(1000 + len(self.slots), data))
        await asyncio.sleep(0)
        return backend_pb2.StoreGeneratedResponse(image=image, already_stored=already)


def _facts(file_id: int, data: bytes) -> backend_pb2.ResolvedImage:
    return backend_pb2.ResolvedImage(
        file_id=file_id,
        blob_url=f"sim:///{file_id}",
        content_type="image/png",
        size_bytes=len(data),
        width=8,
        height=8,
        sha256=hashlib.sha256(data).hexdigest(),
    )


class PlayedBlobs:
    """Inputs by their URL."""

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to close."""

    async def read_all(self, url: str, max_bytes: int) -> bytes:
        """The same for all."""
        del url, max_bytes
        await asyncio.sleep(0)
        return INPUT


class House:
    """The whole; `open` and `close` it, and `start` nodes that have died."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.clock = LoopClock()
        self.faults: list[BaseException] = []
        self.refusals = Counter[str]()
        self.generator = FatefulGenerator(random)
        self.folder = Path(tempfile.mkdtemp(prefix="contentshop-sim-"))
        self.path = self.folder / "enqueue.db"
        self.path.write_bytes(template())
        self.reader = sqlite3.connect(self.path)
        self.broker = WiredBroker(random, self.clock, self.look)
        self.enqueue = Server(Node("enqueue"))
        self.assets = Server(Node("assets"))
        self.assets.node.up = True
        self.assets.doors["contentshop.assets.v1.AssetsBackendService"] = PlayedAssets()
        self.workers = [Node(f"worker-{n}") for n in (1, 2, 3)]
        self._parts: dict[str, Components] = {}
        Wires.faulty = True

    def look(self, query: str) -> list[Any]:
        """What is committed in enqueue's database."""
        return self.reader.execute(query).fetchall()

    async def open(self) -> None:
        """Starts all nodes."""
        await self.start_enqueue()
        for worker in self.workers:
            await self.start_worker(worker)

    async def close(self) -> None:
        """Ends all."""
        for node in (self.enqueue.node, self.assets.node, *self.workers):
            await node.crash()
        self.reader.close()
        shutil.rmtree(self.folder)

    def all_nodes(self) -> list[Node]:
        """Those that may die."""
        return [self.enqueue.node, *self.workers]

    async def restart(self, node: Node) -> None:
        """A new process in place of a dead one."""
        if node is self.enqueue.node:
            await self.start_enqueue()
        else:
            await self.start_worker(node)

    async def start_enqueue(self) -> None:
        """The one enqueue."""
        node = self.enqueue.node
        files = SqliteFiles(self.path)
        url = f"sqlite+aiosqlite:///{self.path}"
        settings = env.load(
            Settings,
            {
                "ENQUEUE_DATABASE_URL": url,
                "AUTH_SECRET": SECRET,
                "SERVICE_SECRET": SECRET,
                "TEAMS_WITHOUT_ACCOUNT": "none",
                "LEASE_SECONDS": str(LEASE_SECONDS),
                "RETENTION_EVENTS_DAYS": str(EVENTS_DAYS),
            },
        )

        async def begin() -> None:
            app = build(
                settings,
                clock=self.clock,
                ids=Dice(self.random),
                broker=self.broker.of(node),
                database=inline_database(url, self.clock, files),
                resolver=Resolver(),
                embedded=False,
            )
            doors = (app.doors.team, app.doors.worker, app.doors.ops)
            self.enqueue.doors = dict(zip(SERVICES, doors, strict=True))
            await _parts_of(app).start()

        node.on_crash.append(files.drop_all)
        await node.spawn(begin())
        node.up = True

    async def start_worker(self, node: Node) -> None:
        """One worker."""
        settings = env.load(
            WorkerSettings,
            {
                "WORKER_NAME": node.name,
                "WORKER_LANES": LANE,
                "WORKER_SLOTS": "2",
                "WORKER_IMAGE_TIMEOUT_SECONDS": "20",
                "AUTH_SECRET": SECRET,
                "SERVICE_SECRET": SECRET,
                "BLOB_URL": "file:///nowhere",
            },
        )
        caller = Caller(node.name, "", frozenset({"worker"}))
        servers = {"enqueue": self.enqueue, "assets": self.assets}

        async def begin() -> None:
            app = build_worker(
                settings,
                clock=self.clock,
                ids=Dice(self.random),
                broker=self.broker.of(node),
                generator=self.generator,
                clients=lambda to: Wires(self.random, servers[to], caller).client(),
                blobs=PlayedBlobs(),  # type: ignore[arg-type]  # it only reads whole ones
            )
            self._parts[node.name] = _parts_of(app)
            await self._parts[node.name].start()

        node.up = True
        await node.spawn(begin())

    async def drain(self, node: Node) -> None:
        """SIGTERM to a worker."""
        await asyncio.wait({node.spawn(self._parts[node.name].stop(), name="stop")})
        await node.crash()

    async def call(self, team: str, scope: str, service: str, method: str, request: Any) -> Any:
        """A call of somebody outside; None when it was refused, or nobody answered."""
        caller = Caller("sim", team, frozenset({scope}))
        wires = Wires(self.random, self.enqueue, caller)
        path = f"/contentshop.enqueue.v1.{service}/{method}"
        try:
            return await wires.unary_unary(path)(request, timeout=5.0)
        except ContentshopError as error:
            self.refusals[error.reason or type(error).__name__] += 1
            return None

    def packager_takes(self) -> messages_pb2.JobEnded | None:
        """An ending, for the played packager."""
        body = self.broker.take("job.ended")
        return None if body is None else messages_pb2.JobEnded.FromString(body)


def _parts_of(app: ServiceApp) -> Components:
    """All but what listens to the network."""
    parts: list[Component] = [
        part for part in app._components if not isinstance(part, (GrpcServer, Readiness))
    ]
    return Components(parts)
