"""PackagerService: the door for teams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from google.protobuf import timestamp_pb2

from contentshop.packager.v1 import packager_pb2 as pb
from contentshop.packager.v1 import packager_pb2_grpc
from libs.common.auth import current_caller
from libs.common.blobs import BlobUrls
from libs.common.canonical import request_key
from libs.common.checks import checking
from services.packager.domain import Archive, Source, SourceKind
from services.packager.usecases.deps import Deps
from services.packager.usecases.reading import (
    ArchiveFiles,
    ArchiveKey,
    get_archive,
    read_archive,
    stored_archive,
)
from services.packager.usecases.requesting import CreateArchive
from services.packager.watch import WatchHub

_KINDS = {
    "job_id": SourceKind.JOB,
    "batch_id": SourceKind.BATCH,
    "folder_id": SourceKind.FOLDER,
}
_ID_NAMES = {kind: name for name, kind in _KINDS.items()}
_Keyed = pb.GetArchiveRequest | pb.WatchArchiveRequest | pb.DownloadArchiveRequest


class PackagerServicer(packager_pb2_grpc.PackagerServiceServicer):
    """Requests of teams; the team is the token's."""

    def __init__(
        self,
        deps: Deps,
        create: CreateArchive,
        hub: WatchHub,
        files: ArchiveFiles,
        blobs: BlobUrls,
    ) -> None:
        self._deps = deps
        self._create = create
        self._hub = hub
        self._files = files
        self._blobs = blobs

    async def CreateArchive(
        self, request: pb.CreateArchiveRequest, context: Any
    ) -> pb.CreateArchiveResponse:
        """The archive of a job, batch or folder; built where there is none that will do."""
        key = request_key(current_caller().team, "CreateArchive", request)
        archive = await self._create(key, lambda: _source(request))
        return pb.CreateArchiveResponse(archive=_archive_message(archive))

    async def GetArchive(
        self, request: pb.GetArchiveRequest, context: Any
    ) -> pb.GetArchiveResponse:
        """One archive as it stands."""
        archive = await get_archive(self._deps, current_caller().team, _archive_key(request))
        return pb.GetArchiveResponse(archive=_archive_message(archive))

    async def WatchArchive(
        self, request: pb.WatchArchiveRequest, context: Any
    ) -> AsyncIterator[pb.WatchArchiveResponse]:
        """One archive until it is READY or FAILED."""
        archive = await get_archive(self._deps, current_caller().team, _archive_key(request))
        async for reading in self._hub.watch(archive):
            yield _watch_message(reading)

    async def DownloadArchive(
        self, request: pb.DownloadArchiveRequest, context: Any
    ) -> AsyncIterator[pb.DownloadArchiveResponse]:
        """The zip: the facts, then chunks."""
        archive = await get_archive(self._deps, current_caller().team, _archive_key(request))
        stored = await stored_archive(self._files, archive)
        yield pb.DownloadArchiveResponse(archive=_archive_message(archive))
        async for chunk in read_archive(self._blobs, stored):
            yield pb.DownloadArchiveResponse(chunk=chunk)


def _source(request: pb.CreateArchiveRequest) -> Source:
    kind = request.WhichOneof("source")
    with checking() as check:
        if kind is None:
            check.add("source", "needs job_id, batch_id or folder_id")
        else:
            check.id(getattr(request, kind), kind)
    assert kind is not None  # or the block above has raised
    return Source(_KINDS[kind], getattr(request, kind))


def _archive_key(request: _Keyed) -> ArchiveKey:
    kind = request.WhichOneof("key")
    with checking() as check:
        if kind is None:
            check.add("key", "needs archive_id, job_id, batch_id or folder_id")
        else:
            check.id(getattr(request, kind), kind)
    if kind is None or kind == "archive_id":
        return request.archive_id
    return Source(_KINDS[kind], getattr(request, kind))


def _watch_message(reading: Archive | None) -> pb.WatchArchiveResponse:
    if reading is None:
        return pb.WatchArchiveResponse()
    return pb.WatchArchiveResponse(
        archive=_archive_message(reading),
        images_written=reading.images_written,
        final=reading.final,
    )


def _archive_message(archive: Archive) -> pb.Archive:
    fault = archive.fault
    message = pb.Archive(
        id=archive.id,
        state=pb.ArchiveState.Value(f"ARCHIVE_STATE_{archive.state}"),
        filename=archive.filename,
        file_id=archive.file_id,
        size_bytes=archive.size_bytes,
        image_count=archive.image_count,
        error_reason=fault.reason if fault else "",
        error_message=fault.message if fault else "",
        create_time=_timestamp(archive.created_at),
        finish_time=_timestamp(archive.finished_at),
    )
    setattr(message, _ID_NAMES[archive.source.kind], archive.source.id)
    return message


def _timestamp(at: datetime | None) -> timestamp_pb2.Timestamp | None:
    if at is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(at)
    return stamp
