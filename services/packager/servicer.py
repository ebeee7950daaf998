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
from services.packager.domain import Archive
from services.packager.usecases.deps import Deps
from services.packager.usecases.reading import (
    ArchiveFiles,
    ArchiveKey,
    get_archive,
    read_archive,
    stored_archive,
)
from services.packager.usecases.requesting import CreateArchive


class PackagerServicer(packager_pb2_grpc.PackagerServiceServicer):
    """Requests of teams; the team is the token's."""

    def __init__(
        self, deps: Deps, create: CreateArchive, files: ArchiveFiles, blobs: BlobUrls
    ) -> None:
        self._deps = deps
        self._create = create
        self._files = files
        self._blobs = blobs

    async def CreateArchive(
        self, request: pb.CreateArchiveRequest, context: Any
    ) -> pb.CreateArchiveResponse:
        """The archive of a job; built when there is none or the last one failed."""
        key = request_key(current_caller().team, "CreateArchive", request)
        archive = await self._create(key, lambda: _job_id(request))
        return pb.CreateArchiveResponse(archive=_archive_message(archive))

    async def GetArchive(
        self, request: pb.GetArchiveRequest, context: Any
    ) -> pb.GetArchiveResponse:
        """One archive as it stands."""
        archive = await get_archive(self._deps, current_caller().team, _archive_key(request))
        return pb.GetArchiveResponse(archive=_archive_message(archive))

    async def DownloadArchive(
        self, request: pb.DownloadArchiveRequest, context: Any
    ) -> AsyncIterator[pb.DownloadArchiveResponse]:
        """The zip: the facts, then chunks."""
        archive = await get_archive(self._deps, current_caller().team, _archive_key(request))
        stored = await stored_archive(self._files, archive)
        yield pb.DownloadArchiveResponse(archive=_archive_message(archive))
        async for chunk in read_archive(self._blobs, stored):
            yield pb.DownloadArchiveResponse(chunk=chunk)


def _job_id(request: pb.CreateArchiveRequest) -> int:
    with checking() as check:
        if check.check(request.WhichOneof("source") is not None, "source", "needs job_id"):
            check.id(request.job_id, "job_id")
    return request.job_id


def _archive_key(request: pb.GetArchiveRequest | pb.DownloadArchiveRequest) -> ArchiveKey:
    kind = request.WhichOneof("key")
    with checking() as check:
        if kind is None:
            check.add("key", "needs archive_id or job_id")
        else:
            check.id(getattr(request, kind), kind)
    return ArchiveKey(request.archive_id, request.job_id)


def _archive_message(archive: Archive) -> pb.Archive:
    fault = archive.fault
    return pb.Archive(
        id=archive.id,
        job_id=archive.job_id,
        state=pb.ArchiveState.Value(f"ARCHIVE_STATE_{archive.state}"),
        filename=archive.filename,
        file_id=archive.file_id,
        size_bytes=archive.size_bytes,
        image_count=len(archive.images),
        error_reason=fault.reason if fault else "",
        error_message=fault.message if fault else "",
        create_time=_timestamp(archive.created_at),
        finish_time=_timestamp(archive.finished_at),
    )


def _timestamp(at: datetime | None) -> timestamp_pb2.Timestamp | None:
    if at is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(at)
    return stamp
