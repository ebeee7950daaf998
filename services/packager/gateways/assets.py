"""assets, by gRPC."""

from __future__ import annotations

from collections.abc import Sequence

from contentshop.assets.v1 import backend_pb2 as pb
from contentshop.assets.v1 import backend_pb2_grpc
from libs.common.errors import InvalidArgumentError, NotFoundError, UnavailableError
from libs.common.grpc_client import RpcClient
from services.packager.domain import (
    Archive,
    FolderImages,
    SourceImage,
    SourceKind,
    StoredArchive,
    WritePlace,
    WrittenZip,
)

CALL_SECONDS = 10.0
STORE_SECONDS = 60.0  # assets looks at the blob before it answers
# Of the 2,000 that assets resolves at once: an answer may have 4 MiB, a presigned URL 2 KiB.
RESOLVE_PAGE = 1000

_ID_FIELDS = {
    SourceKind.JOB: "job_id",
    SourceKind.BATCH: "batch_id",
    SourceKind.FOLDER: "folder_id",
}


class AssetsGateway:
    """What the packager asks of assets; errors are typed."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._stub = backend_pb2_grpc.AssetsBackendServiceStub(client.channel)

    def ready(self) -> bool:
        """Whether the channel is connected."""
        return self._client.ready()

    async def resolve(self, team: str, file_ids: Sequence[int]) -> list[SourceImage]:
        """The images in the order asked, RESOLVE_PAGE a call; NotFoundError when one is missing."""
        pages = range(0, len(file_ids), RESOLVE_PAGE)
        found = [await self._resolve(team, file_ids[at : at + RESOLVE_PAGE]) for at in pages]
        return [image for page in found for image in page]

    async def _resolve(self, team: str, file_ids: Sequence[int]) -> list[SourceImage]:
        request = pb.ResolveImagesRequest(
            team=team, refs=[pb.ImageRef(file_id=file_id) for file_id in file_ids]
        )
        try:
            answer: pb.ResolveImagesResponse = await self._client.unary(
                self._stub.ResolveImages, request, timeout_seconds=CALL_SECONDS
            )
        except InvalidArgumentError:
            raise NotFoundError("image") from None
        if [image.file_id for image in answer.images] != list(file_ids):
            raise UnavailableError("assets answered for other images")
        return [
            SourceImage(
                file_id=image.file_id,
                blob_url=image.blob_url,
                content_type=image.content_type,
                size_bytes=image.size_bytes,
                width=image.width,
                height=image.height,
                sha256=image.sha256,
                crc32=image.crc32,
            )
            for image in answer.images
        ]

    async def folder(self, team: str, folder_id: int) -> FolderImages:
        """The images of a folder; NotFoundError, FailedPreconditionError FOLDER_TOO_LARGE."""
        answer: pb.ListFolderImagesResponse = await self._client.unary(
            self._stub.ListFolderImages,
            pb.ListFolderImagesRequest(team=team, folder_id=folder_id),
            timeout_seconds=CALL_SECONDS,
        )
        return FolderImages(team, folder_id, answer.name, tuple(answer.file_ids))

    async def begin(self, team: str, size_bytes: int) -> WritePlace:
        """Where a zip of exactly this size may be written."""
        answer: pb.BeginArchiveResponse = await self._client.unary(
            self._stub.BeginArchive,
            pb.BeginArchiveRequest(team=team, size_bytes=size_bytes),
            timeout_seconds=CALL_SECONDS,
        )
        return WritePlace(answer.blob_key, answer.write_url)

    async def store(self, archive: Archive, written: WrittenZip) -> int:
        """Makes a written zip a file; its id. FailedPreconditionError BLOB_INCOMPLETE."""
        request = pb.StoreArchiveRequest(
            team=archive.team,
            blob_key=written.blob_key,
            filename=archive.filename,
            size_bytes=written.size_bytes,
            sha256=written.sha256,
            crc32=written.crc32,
        )
        setattr(request, _ID_FIELDS[archive.source.kind], archive.source.id)
        answer: pb.StoreArchiveResponse = await self._client.unary(
            self._stub.StoreArchive, request, timeout_seconds=STORE_SECONDS
        )
        return answer.file_id

    async def resolve_archive(self, team: str, file_id: int) -> StoredArchive:
        """The zip's place and facts; NotFoundError."""
        answer: pb.ResolveArchiveResponse = await self._client.unary(
            self._stub.ResolveArchive,
            pb.ResolveArchiveRequest(team=team, file_id=file_id),
            timeout_seconds=CALL_SECONDS,
        )
        return StoredArchive(answer.blob_url, answer.size_bytes, answer.sha256)
