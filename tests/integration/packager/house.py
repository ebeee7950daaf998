"""The real packager on loopback, with a memory broker, a blob folder, and clients for it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from contentshop.assets.v1 import backend_pb2
from contentshop.enqueue.v1 import execution_pb2, job_pb2, messages_pb2
from contentshop.packager.v1 import packager_pb2 as pb
from contentshop.packager.v1 import packager_pb2_grpc
from libs.common import env
from libs.common.auth import mint_user_token
from libs.common.blobs import BlobStore
from libs.common.broker import JOB_ENDED, Message
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.errors import NotFoundError, UnavailableError
from libs.common.grpc_client import RpcClient, open_channel
from libs.common.ids import SystemIds
from services.packager.app import PackagerApp, build
from services.packager.consumer import QUEUE
from services.packager.settings import Settings
from tests.fakes.archive_assets import FakeArchiveAssets
from tests.fakes.execution import FakeExecution
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually
from tests.support.zips import read_strictly

SECRET = "s" * 32
USER_SECRET = "u" * 32
CLOCK = SystemClock()
FINISHED_MS = 1_700_000_000_123
PATIENCE_SECONDS = 60.0  # of a busy machine

PENDING = pb.ARCHIVE_STATE_PENDING
READY = pb.ARCHIVE_STATE_READY
FAILED = pb.ARCHIVE_STATE_FAILED


@dataclass
class House:
    """The packager and what tests talk to it with."""

    app: PackagerApp
    assets: FakeArchiveAssets
    enqueue: FakeExecution
    broker: MemoryBroker
    environ: dict[str, str]
    clients: list[RpcClient] = field(default_factory=list)

    def team(self, name: str = "red", app: PackagerApp | None = None) -> Team:
        """A team's client, of the app that runs now or of another one."""
        token = mint_user_token(
            secret=USER_SECRET, issuer="contentshop", team=name, scopes=["team"], clock=CLOCK
        )
        client = RpcClient(open_channel(f"127.0.0.1:{(app or self.app).port}"), lambda: token)
        self.clients.append(client)
        return Team(client)

    async def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Runs a statement of the test's own; its rows, if it has any."""
        async with self.app.deps.db.duty() as tx:
            result = await tx.execute(sa.text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []

    async def taken_in(self) -> None:
        """Returns once every message published so far has been dealt with."""
        lane = self.broker._lane(QUEUE)

        def idle() -> bool:
            return not lane.ready and not any(taker._unended for taker in lane.subscriptions)

        await eventually(idle, what="all messages taken in")

    async def restart(self, **changes: str) -> None:
        """Ends the app and builds a new one on the same database."""
        await self.app.stop()
        self.environ |= changes
        self.app = build(env.load(Settings, self.environ), broker=self.broker)
        await self.app.start()

    async def job(
        self,
        job_id: int = 7,
        images: int = 3,
        *,
        team: str = "red",
        content_type: str = "image/png",
        state: job_pb2.JobState.ValueType = job_pb2.JOB_STATE_SUCCEEDED,
    ) -> list[bytes]:
        """A job that enqueue and assets know, files job_id * 100 + index; its images' bytes."""
        made = [image_bytes(job_id, index) for index in range(1, images + 1)]
        for index, data in enumerate(made, start=1):
            await self.assets.add_image(team, job_id * 100 + index, data, content_type)
        self.enqueue.add_job(
            team, job_id, [job_id * 100 + index for index in range(1, images + 1)], state
        )
        return made

    async def batch(
        self,
        batch_id: int = 5,
        variants: Sequence[tuple[str, int]] = (("Rot", 2), ("", 1)),
        *,
        name: str = "Summer",
        team: str = "red",
        finish_time_ms: int = FINISHED_MS,
    ) -> list[list[bytes]]:
        """A batch that enqueue and assets know, by variant and number of images; their bytes.

        The files of variant n are those of job batch_id * 1000 + n.
        """
        answer = execution_pb2.GetBatchOutputsResponse(
            name=name, ended=True, finish_time_ms=finish_time_ms
        )
        made = []
        for number, (variant, images) in enumerate(variants, start=1):
            job_id = batch_id * 1000 + number
            made.append(await self.job(job_id, images, team=team))
            outputs = self.enqueue.jobs[team, job_id].outputs
            answer.variants.add(variant_index=number, variant=variant, outputs=outputs)
        self.enqueue.batches[team, batch_id] = answer
        return made

    async def folder(
        self, folder_id: int = 3, images: int = 2, *, team: str = "red"
    ) -> list[bytes]:
        """A folder that assets knows, with so many images; their bytes."""
        made = await self.job(folder_id * 1000, images, team=team)
        ids = [folder_id * 100_000 + index for index in range(1, images + 1)]
        answer = backend_pb2.ListFolderImagesResponse(name="Best of", file_ids=ids)
        self.assets.folders[team, folder_id] = answer
        return made

    def ended(self, job_id: int = 7, *, team: str = "red") -> messages_pb2.JobEnded:
        """`job.ended` as enqueue words it, a zip wanted."""
        outputs = self.enqueue.jobs[team, job_id].outputs
        return messages_pb2.JobEnded(
            schema_version=1,
            job_id=job_id,
            team=team,
            state=job_pb2.JOB_STATE_SUCCEEDED,
            outputs=[execution_pb2.JobOutput(index=o.index, file_id=o.file_id) for o in outputs],
            number_of_variations=len(outputs),
            finish_time_ms=FINISHED_MS,
            archive_wanted=True,
        )

    async def announce(self, job_id: int = 7, *, team: str = "red", wanted: bool = True) -> None:
        """Publishes `job.ended`."""
        ended = self.ended(job_id, team=team)
        ended.archive_wanted = wanted
        await self.publish(ended.SerializeToString())

    async def publish(self, body: bytes) -> None:
        """Publishes any bytes as `job.ended`."""
        assert await self.broker.publish([Message(JOB_ENDED, body)]) == [True]

    async def reported(self, count: int = 1) -> list[execution_pb2.RecordArchiveRequest]:
        """The reports once there are so many."""
        told = self.enqueue.reports
        await eventually(
            lambda: len(told) >= count, timeout_seconds=PATIENCE_SECONDS, what=f"{count} reports"
        )
        return told


class Team:
    """PackagerService for one team."""

    def __init__(self, client: RpcClient) -> None:
        self.client = client
        self.stub = packager_pb2_grpc.PackagerServiceStub(client.channel)

    async def create(self, job_id: int = 7, request_id: str = "") -> pb.Archive:
        return await self.ask(request_id, job_id=job_id)

    async def ask(self, request_id: str = "", /, **source: int) -> pb.Archive:
        """CreateArchive of a job_id, batch_id or folder_id."""
        request = pb.CreateArchiveRequest(request_id=request_id, **source)
        answer = await self.call("CreateArchive", request)
        return answer.archive  # type: ignore[no-any-return]

    async def settled(self, archive_id: int) -> pb.Archive:
        """The archive once it is READY or FAILED, by watching it."""
        newest = pb.Archive()
        async for message in self.watch(archive_id=archive_id):
            newest = message.archive
        return newest

    async def watch(self, **key: int) -> AsyncGenerator[pb.WatchArchiveResponse, None]:
        """WatchArchive; the last message is final."""
        request = pb.WatchArchiveRequest(**key)
        final = False
        async for message in self.client.stream(self.stub.WatchArchive, request):
            assert not final
            final = message.final
            yield message
        assert final

    async def get(self, **key: int) -> pb.Archive:
        answer = await self.call("GetArchive", pb.GetArchiveRequest(**key))
        return answer.archive  # type: ignore[no-any-return]

    async def call(self, method: str, request: Any) -> Any:
        return await self.client.unary(
            getattr(self.stub, method), request, timeout_seconds=PATIENCE_SECONDS
        )

    async def ended(self, job_id: int = 7, state: int = READY) -> pb.Archive:
        """The job's archive once it is in the state."""

        async def there() -> pb.Archive | None:
            try:
                archive = await self.get(job_id=job_id)
            except (NotFoundError, UnavailableError):  # its message, or we, are still on the way
                return None
            return archive if archive.state == state else None

        found = await eventually(
            there, timeout_seconds=PATIENCE_SECONDS, what=f"archive in state {state}"
        )
        assert found is not None
        return found

    async def parts(self, **key: int) -> AsyncIterator[pb.DownloadArchiveResponse]:
        request = pb.DownloadArchiveRequest(**key)
        async for part in self.client.stream(self.stub.DownloadArchive, request):
            yield part

    async def download(self, **key: int) -> tuple[pb.Archive, bytes]:
        parts = [part async for part in self.parts(**key)]
        assert [part.WhichOneof("part") for part in parts[:1]] == ["archive"]
        chunks = [part.chunk for part in parts[1:]]
        assert all(0 < len(chunk) <= 512 * 1024 for chunk in chunks)
        return parts[0].archive, b"".join(chunks)


def image_bytes(job_id: int, index: int, size: int = 150_000) -> bytes:
    """Bytes of no pattern, the same for the same job and index; not an image, nobody looks."""
    seed = f"{job_id}.{index}".encode()
    return hashlib.shake_128(seed).digest(size + index)


def check_archive(data: bytes, job_id: int, images: list[bytes], extension: str = "png") -> None:
    """The zip holds exactly these images in order, and a manifest that says so."""
    names = [f"image-{number}.{extension}" for number in range(1, len(images) + 1)]
    assert [entry.name for entry in read_strictly(data).entries] == [*names, "manifest.json"]
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.testzip() is None
        assert [found.read(name) for name in names] == images
        facts = json.loads(found.read("manifest.json"))
    assert facts["job_id"] == str(job_id)
    assert [image["file_name"] for image in facts["images"]] == names
    assert [image["sha256"] for image in facts["images"]] == [
        hashlib.sha256(data).hexdigest() for data in images
    ]


@asynccontextmanager
async def open_house(
    urls: DatabaseUrls, folder: Path, *, store: BlobStore | None = None, **settings: str
) -> AsyncIterator[House]:
    """A running house; `settings` are environment variables, BLOB_URL that of another store."""
    # Both answer what the packager calls, and UNIMPLEMENTED to the rest.
    assets = FakeArchiveAssets(SECRET, folder / "blobs", store)  # type: ignore[abstract]
    await assets.start()
    enqueue = FakeExecution(SECRET)  # type: ignore[abstract]
    await enqueue.server.start()
    broker = MemoryBroker(clock=CLOCK, ids=SystemIds())
    await broker.start()
    environ = {
        **urls.settings("packager"),
        "PACKAGER_LISTEN": "127.0.0.1:0",
        "ASSETS_TARGET": f"127.0.0.1:{assets.port}",
        "ENQUEUE_TARGET": f"127.0.0.1:{enqueue.server.port}",
        "BLOB_URL": (folder / "blobs").as_uri(),
        "AUTH_SECRET": USER_SECRET,
        "SERVICE_SECRET": SECRET,
        "PACKAGER_SWEEP_SECONDS": "0.1",
        "PACKAGER_RETRY_SECONDS": "0.005",
        "PACKAGER_WATCH_SECONDS": "0.05",
        "GRACE_SECONDS": "0.5",
        **settings,
    }
    app = build(env.load(Settings, environ), broker=broker)
    await app.start()
    house = House(app, assets, enqueue, broker, environ)
    try:
        yield house
    finally:
        for client in house.clients:
            await client.close()
        await house.app.stop()
        await broker.close()
        await enqueue.server.stop()
        await assets.stop()
        await assets.store.close()
