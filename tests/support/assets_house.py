"""The assets service in process, over real gRPC: SQLite or PostgreSQL, a folder or S3."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2, assets_pb2_grpc, backend_pb2, backend_pb2_grpc
from contentshop.enqueue.v1 import execution_pb2, job_pb2, messages_pb2
from libs.common.auth import mint_user_token, service_tokens
from libs.common.blobs_open import open_blob_urls
from libs.common.broker import JOB_ENDED, JOB_ENQUEUED, Message
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.db import Database
from libs.common.errors import ContentshopError
from libs.common.grpc_client import RpcClient, open_channel
from libs.common.ids import SystemIds
from libs.common.service_app import ServiceApp
from services.assets import tables
from services.assets.app import build
from services.assets.settings import Settings
from tests.fixtures import images
from tests.support.databases import DatabaseUrls, sqlite_database
from tests.support.eventually import eventually

SECRET = "a secret of tests, long enough to be one"
CHUNK = 64 * 1024
TIMEOUT_SECONDS = 30.0
PNG = images.encoded("PNG")
HOSTS = ("shop.example", "localhost:8080")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def chunks_of(data: bytes, size: int = CHUNK) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


async def reason_of(call: Awaitable[Any]) -> str:
    """The reason a call is refused with."""
    with pytest.raises(ContentshopError) as caught:
        await call
    return caught.value.reason


class Team:
    """AssetsService as one team calls it."""

    def __init__(self, client: RpcClient, name: str) -> None:
        self.name = name
        self.client = client
        self.stub = assets_pb2_grpc.AssetsServiceStub(client.channel)

    async def call(self, method: str, request: Any) -> Any:
        return await self.client.unary(
            getattr(self.stub, method), request, timeout_seconds=TIMEOUT_SECONDS
        )

    async def upload(self, data: bytes = PNG, **header: Any) -> assets_pb2.File:
        """Uploads data; what the header says may be overruled."""
        said: dict[str, Any] = {"filename": "photo.png", "size_bytes": len(data)} | header
        parts = [assets_pb2.UploadFileRequest(header=assets_pb2.UploadHeader(**said))]
        parts += [assets_pb2.UploadFileRequest(chunk=chunk) for chunk in chunks_of(data)]
        return await self.send(parts)

    async def send(
        self,
        parts: Iterable[assets_pb2.UploadFileRequest] | AsyncIterator[assets_pb2.UploadFileRequest],
    ) -> assets_pb2.File:
        """Sends any messages as an upload."""
        response: assets_pb2.UploadFileResponse = await self.call("UploadFile", parts)
        return response.file

    async def get(self, file_id: int) -> assets_pb2.File:
        request = assets_pb2.GetFileRequest(file_id=file_id)
        response: assets_pb2.GetFileResponse = await self.call("GetFile", request)
        return response.file

    async def files(self, **filters: Any) -> list[assets_pb2.File]:
        response = await self.call("ListFiles", assets_pb2.ListFilesRequest(**filters))
        return list(response.files)

    async def storage(self) -> assets_pb2.GetStorageResponse:
        """What the team stores and may store."""
        response: assets_pb2.GetStorageResponse = await self.call(
            "GetStorage", assets_pb2.GetStorageRequest()
        )
        return response

    async def delete(self, file_id: int) -> None:
        await self.call("DeleteFile", assets_pb2.DeleteFileRequest(file_id=file_id))

    async def download(self, file_id: int) -> tuple[assets_pb2.File, bytes]:
        """The facts and all the bytes."""
        request = assets_pb2.DownloadFileRequest(file_id=file_id)
        parts = [part async for part in self.client.stream(self.stub.DownloadFile, request)]
        assert parts[0].WhichOneof("part") == "file"
        assert all(part.WhichOneof("part") == "chunk" for part in parts[1:])
        return parts[0].file, b"".join(part.chunk for part in parts[1:])


class Backend:
    """AssetsBackendService as other services call it."""

    def __init__(self, client: RpcClient) -> None:
        self.client = client
        self.stub = backend_pb2_grpc.AssetsBackendServiceStub(client.channel)

    async def call(self, method: str, request: Any) -> Any:
        return await self.client.unary(
            getattr(self.stub, method), request, timeout_seconds=TIMEOUT_SECONDS
        )

    async def resolve(
        self,
        team: str,
        *refs: int | str,
        pin_token: str = "",
        pins: Sequence[backend_pb2.JobPins] = (),
    ) -> list[backend_pb2.ResolvedImage]:
        request = backend_pb2.ResolveImagesRequest(
            team=team,
            pin_token=pin_token,
            pins=pins,
            refs=[
                backend_pb2.ImageRef(file_id=ref)
                if isinstance(ref, int)
                else backend_pb2.ImageRef(upload_url=ref)
                for ref in refs
            ],
        )
        return list((await self.call("ResolveImages", request)).images)

    async def store(
        self, team: str, job_id: int, index: int, data: bytes = PNG, **header: Any
    ) -> backend_pb2.StoreGeneratedResponse:
        said: dict[str, Any] = {
            "team": team,
            "job_id": job_id,
            "image_index": index,
            "size_bytes": len(data),
            "sha256": sha256(data),
            "model": "model-1",
            "attempt": 1,
        } | header
        request = backend_pb2.StoreGeneratedRequest
        parts = [request(header=backend_pb2.StoreGeneratedHeader(**said))]
        parts += [request(chunk=chunk) for chunk in chunks_of(data)]
        response: backend_pb2.StoreGeneratedResponse = await self.call("StoreGenerated", parts)
        return response


class AssetsHouse:
    """The service, its broker and its callers; opened by `assets_house`."""

    def __init__(self, urls: DatabaseUrls, blob_url: str, **changes: Any) -> None:
        self.clock = SystemClock()
        self.ids = SystemIds()
        self.broker = MemoryBroker(clock=self.clock, ids=self.ids)
        self.urls = urls
        values: dict[str, Any] = {
            "auth_secret": SECRET,
            "service_secret": SECRET,
            "listen": "127.0.0.1:0",
            "database_url": urls.app,
            "duty_database_url": urls.duty,
            "blob_url": blob_url,
            "upload_hosts": HOSTS,
            "sweep_seconds": 0.1,
            "removal_seconds": 0.0,
            "grace_seconds": 1.0,
        }
        self.settings = Settings(**(values | changes))
        self.app: ServiceApp = build(
            self.settings, clock=self.clock, ids=self.ids, broker=self.broker
        )
        self.db = Database(urls.app, duty_url=urls.duty, clock=self.clock, pool_size=3)
        self._clients: list[RpcClient] = []

    async def start(self) -> None:
        await self.broker.start()
        await self.app.start()

    async def stop(self) -> None:
        for client in self._clients:
            await client.close()
        await self.app.stop()
        await self.broker.close()
        await self.db.stop()

    def channel(self) -> grpc.aio.Channel:
        return open_channel(f"127.0.0.1:{self.app.port}")

    def client(self, token: Callable[[], str]) -> RpcClient:
        client = RpcClient(self.channel(), token)
        self._clients.append(client)
        return client

    def team_token(self, name: str, *scopes: str) -> str:
        return mint_user_token(
            secret=SECRET,
            issuer="contentshop",
            team=name,
            scopes=scopes or ["team"],
            clock=self.clock,
        )

    def team(self, name: str, *scopes: str) -> Team:
        token = self.team_token(name, *scopes)
        return Team(self.client(lambda: token), name)

    async def set_storage(self, team: str, **limits: int) -> assets_pb2.SetTeamStorageResponse:
        """SetTeamStorage, as an operator calls it."""
        token = self.team_token("", "ops")
        client = self.client(lambda: token)
        response: assets_pb2.SetTeamStorageResponse = await client.unary(
            assets_pb2_grpc.AssetsOpsServiceStub(client.channel).SetTeamStorage,
            assets_pb2.SetTeamStorageRequest(team=team, **limits),
            timeout_seconds=TIMEOUT_SECONDS,
        )
        return response

    def backend(self, scope: str = "worker") -> Backend:
        tokens = service_tokens(
            secret=SECRET, subject="tests", target="assets", scope=scope, clock=self.clock
        )
        return Backend(self.client(tokens))

    async def archive(self, team: str, job_id: int, data: bytes = b"a zip") -> int:
        """Stores an archive of a job, as the packager does; its file id."""
        packager = self.backend("packager")
        begun = await packager.call(
            "BeginArchive", backend_pb2.BeginArchiveRequest(team=team, size_bytes=len(data))
        )
        urls = open_blob_urls(self.settings.blob_url, clock=self.clock, ids=self.ids)
        await urls.start()
        try:
            await urls.write(begun.write_url, len(data), [data])
        finally:
            await urls.close()
        request = backend_pb2.StoreArchiveRequest(
            team=team,
            blob_key=begun.blob_key,
            filename="a.zip",
            size_bytes=len(data),
            sha256=sha256(data),
            job_id=job_id,
        )
        file_id: int = (await packager.call("StoreArchive", request)).file_id
        assert (await packager.call("StoreArchive", request)).file_id == file_id
        return file_id

    async def say(self, routing_key: str, body: bytes) -> None:
        """Publishes a message and waits until it was taken in."""
        assert await self.broker.publish([Message(routing_key, body)]) == [True]
        queue = "assets.jobs"
        await eventually(
            lambda: self.in_hand() == self.broker.ready_count(queue) == 0, timeout_seconds=30
        )

    def in_hand(self) -> int:
        """Messages that the service was given and has not ended."""
        subscriptions = self.broker._lane("assets.jobs").subscriptions
        return sum(len(subscription._unended) for subscription in subscriptions)

    async def enqueued(self, team: str, job_id: int, pin_token: str) -> None:
        message = messages_pb2.JobEnqueued(
            schema_version=1, job_id=job_id, team=team, pin_token=pin_token
        )
        await self.say(JOB_ENQUEUED, message.SerializeToString())

    async def ended(
        self,
        team: str,
        job_id: int,
        pin_token: str = "",
        outputs: Sequence[int] = (),
        **changes: Any,
    ) -> None:
        values: dict[str, Any] = {
            "schema_version": 1,
            "job_id": job_id,
            "team": team,
            "pin_token": pin_token,
            "state": job_pb2.JOB_STATE_SUCCEEDED,
            "outputs": [
                execution_pb2.JobOutput(index=n, file_id=file_id)
                for n, file_id in enumerate(outputs, start=1)
            ],
            "source_task_id": "task-1",
        }
        message = messages_pb2.JobEnded(**(values | changes))
        await self.say(JOB_ENDED, message.SerializeToString())

    async def count(self, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
        async with self.db.read_all() as tx:
            number: int = await tx.scalar(
                sa.select(sa.func.count()).select_from(table).where(*where)
            )
        return number

    async def rows(self) -> int:
        """Rows of files, deleted ones too."""
        return await self.count(tables.files)


def blob_files(folder: Path) -> list[Path]:
    """Everything in the folder of a file store, temporary files too.

    os.walk and not rglob: a folder may be pruned away while we look, and then held nothing.
    """
    return [Path(at) / name for at, _, names in os.walk(folder) for name in names]


async def nothing_in(folder: Path) -> None:
    """Waits until the folder holds no file: a put that was given up ends a moment later."""
    await eventually(
        lambda: not blob_files(folder), timeout_seconds=30, what=f"no blob: {blob_files(folder)}"
    )


def database(kind: str, request: pytest.FixtureRequest, folder: Path) -> DatabaseUrls:
    """A migrated database of this kind, `sqlite` or `postgres`."""
    if kind == "sqlite":
        return sqlite_database("assets", folder)
    urls: DatabaseUrls = request.getfixturevalue("postgres_templates").database("assets")
    return urls


@asynccontextmanager
async def opened(house: AssetsHouse) -> AsyncIterator[AssetsHouse]:
    """The house, running."""
    try:
        await house.start()
        yield house
    finally:
        await house.stop()


async def all_of(*calls: Awaitable[Any]) -> list[Any]:
    """The results of calls made at once, errors among them."""
    return list(await asyncio.gather(*calls, return_exceptions=True))


async def read_url(house: AssetsHouse, url: str) -> bytes:
    """The bytes behind a blob_url, as other services read them."""
    urls = open_blob_urls(house.settings.blob_url, clock=house.clock, ids=house.ids)
    await urls.start()
    try:
        return await urls.read_all(url, 10_000_000)
    finally:
        await urls.close()


MakeHouse = Callable[..., Awaitable[AssetsHouse]]
"""Makes a running house with these settings."""

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.real)]
