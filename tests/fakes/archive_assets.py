"""A real gRPC server with the part of assets that the packager needs, over a real blob folder."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from isal import isal_zlib

from contentshop.assets.v1 import backend_pb2 as pb
from contentshop.assets.v1 import backend_pb2_grpc
from libs.common.auth import Authenticator, SharedSecret
from libs.common.blobs import BlobStore
from libs.common.blobs_file import FileBlobStore
from libs.common.clock import SystemClock
from libs.common.errors import (
    ContentshopError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
)
from libs.common.grpc_server import GrpcServer
from libs.common.ids import SystemIds


@dataclass
class StoredFile:
    """A file as assets would keep it."""

    team: str
    key: str
    data_sha256: str
    crc32: int
    size: int
    content_type: str = "image/png"
    filename: str = ""
    job_id: int = 0


@dataclass
class Faults:
    """What is to go wrong.

    Attributes:
        errors: method → errors to raise, in order, before it works.
        lose_answers: method → how often it works and its answer is lost.
        hang: methods that never answer.
        gates: method → what it waits for before it answers.
    """

    errors: dict[str, list[ContentshopError]] = field(default_factory=dict)
    lose_answers: dict[str, int] = field(default_factory=dict)
    hang: set[str] = field(default_factory=set)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)

    def gate(self, method: str) -> asyncio.Event:
        """Lets no call of the method pass until the event is set."""
        return self.gates.setdefault(method, asyncio.Event())

    async def before(self, method: str) -> None:
        if method in self.hang:
            await asyncio.Event().wait()
        if method in self.gates:
            await self.gates[method].wait()
        if self.errors.get(method):
            raise self.errors[method].pop(0)

    async def after(self, method: str, context: Any) -> None:
        if self.lose_answers.get(method):
            self.lose_answers[method] -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")


class FakeArchiveAssets(backend_pb2_grpc.AssetsBackendServiceServicer):
    """ResolveImages, BeginArchive, StoreArchive, ListFolderImages and ResolveArchive.

    Attributes:
        files: id → file.
        folders: (team, folder id) → what ListFolderImages answers.
        stored: every StoreArchive that arrived, in order.
        calls: the names of the methods called, in order.
        root: the folder of the blobs, unless another store is given.
        folder: what all keys begin with, one's own on a shared store.
    """

    def __init__(self, service_secret: str, root: Path, store: BlobStore | None = None) -> None:
        self.root = root
        self.store = store or FileBlobStore(root, SystemIds())
        self.files: dict[int, StoredFile] = {}
        self.folders: dict[tuple[str, int], pb.ListFolderImagesResponse] = {}
        self.stored: list[pb.StoreArchiveRequest] = []
        self.calls: list[str] = []
        self.faults = Faults()
        self.folder = "t"
        self._begun = 0
        self._file_ids = itertools.count(1_000_001)  # two may be stored at once
        self._secret = service_secret
        self.port = 0
        self.server = self._new_server()

    def _new_server(self) -> GrpcServer:
        def register(server: grpc.aio.Server) -> None:
            backend_pb2_grpc.add_AssetsBackendServiceServicer_to_server(self, server)

        return GrpcServer(
            services=["contentshop.assets.v1.AssetsBackendService"],
            register=register,
            authenticator=Authenticator(
                service="assets",
                user_keys=SharedSecret("unused"),
                user_issuer="contentshop",
                service_secret=self._secret,
                clock=SystemClock(),
            ),
            address=f"127.0.0.1:{self.port}",
            grace_seconds=0.0,
        )

    async def start(self) -> None:
        """Starts, also again on the same port after stop."""
        await self.store.start()
        self.server = self._new_server()
        await self.server.start()
        self.port = self.server.port

    async def stop(self) -> None:
        await self.server.stop()

    async def add_image(
        self, team: str, file_id: int, data: bytes, content_type: str = "image/png"
    ) -> StoredFile:
        """Stores an image under a given id."""
        key = f"{self.folder}/generated/{file_id}"
        await self.store.put(key, [data], content_type)
        stored = StoredFile(
            team,
            key,
            hashlib.sha256(data).hexdigest(),
            isal_zlib.crc32(data),
            len(data),
            content_type,
        )
        self.files[file_id] = stored
        return stored

    def path_of(self, file_id: int) -> Path:
        """Where the bytes of a file are."""
        return self.root / self.files[file_id].key

    def archives(self) -> list[int]:
        """The ids of all archive files."""
        return [file_id for file_id, file in self.files.items() if file.filename]

    async def ResolveImages(  # noqa: N802
        self, request: pb.ResolveImagesRequest, context: Any
    ) -> pb.ResolveImagesResponse:
        self.calls.append("ResolveImages")
        await self.faults.before("ResolveImages")
        images, violations = [], []
        for position, ref in enumerate(request.refs):
            file = self.files.get(ref.file_id)
            if file is None or file.team != request.team:
                violations.append(
                    FieldViolation(f"refs[{position}]", "is not found", "IMAGE_NOT_FOUND")
                )
                continue
            images.append(
                pb.ResolvedImage(
                    file_id=ref.file_id,
                    blob_url=self.store.read_url(file.key),
                    content_type=file.content_type,
                    size_bytes=file.size,
                    width=30,
                    height=20,
                    sha256=file.data_sha256,
                    crc32=file.crc32,
                )
            )
        if violations:
            raise InvalidArgumentError(
                "bad references", reason="BAD_IMAGE_REFERENCE", violations=violations
            )
        await self.faults.after("ResolveImages", context)
        return pb.ResolveImagesResponse(images=images)

    async def BeginArchive(  # noqa: N802
        self, request: pb.BeginArchiveRequest, context: Any
    ) -> pb.BeginArchiveResponse:
        self.calls.append("BeginArchive")
        await self.faults.before("BeginArchive")
        self._begun += 1
        key = f"{self.folder}/archives/{request.size_bytes}-{self._begun}"
        await self.faults.after("BeginArchive", context)
        return pb.BeginArchiveResponse(blob_key=key, write_url=self.store.write_url(key))

    async def StoreArchive(  # noqa: N802
        self, request: pb.StoreArchiveRequest, context: Any
    ) -> pb.StoreArchiveResponse:
        self.calls.append("StoreArchive")
        self.stored.append(request)
        await self.faults.before("StoreArchive")
        stat = await self.store.stat(request.blob_key)
        if stat is None or stat.size != request.size_bytes:
            raise FailedPreconditionError("the blob is not there", reason="BLOB_INCOMPLETE")
        for file_id, file in self.files.items():
            if file.key == request.blob_key:
                return pb.StoreArchiveResponse(file_id=file_id)
        file_id = next(self._file_ids)
        self.files[file_id] = StoredFile(
            request.team,
            request.blob_key,
            request.sha256,
            request.crc32,
            request.size_bytes,
            "application/zip",
            request.filename,
            request.job_id,
        )
        await self.faults.after("StoreArchive", context)
        return pb.StoreArchiveResponse(file_id=file_id)

    async def ListFolderImages(  # noqa: N802
        self,
        request: pb.ListFolderImagesRequest,
        context: Any,  # noqa: ARG002
    ) -> pb.ListFolderImagesResponse:
        self.calls.append("ListFolderImages")
        await self.faults.before("ListFolderImages")
        folder = self.folders.get((request.team, request.folder_id))
        if folder is None:
            raise NotFoundError("folder")
        return folder

    async def ResolveArchive(  # noqa: N802
        self,
        request: pb.ResolveArchiveRequest,
        context: Any,  # noqa: ARG002
    ) -> pb.ResolveArchiveResponse:
        self.calls.append("ResolveArchive")
        await self.faults.before("ResolveArchive")
        file = self.files.get(request.file_id)
        if file is None or file.team != request.team:
            raise NotFoundError("file")
        return pb.ResolveArchiveResponse(
            blob_url=self.store.read_url(file.key),
            filename=file.filename,
            size_bytes=file.size,
            sha256=file.data_sha256,
        )
