"""AssetsService: files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from contentshop.assets.v1 import assets_pb2
from libs.common.auth import REVIEW_SCOPE, current_caller
from libs.common.checks import MAX_ID, checking
from libs.common.paging import page_size
from services.assets.domain import File, FileKind
from services.assets.servicer.convert import file_message, timestamp
from services.assets.servicer.headers import request_key, upload_of
from services.assets.servicer.means import Doors
from services.assets.servicer.streams import PartStream
from services.assets.store.files import FileFilter
from services.assets.usecases import reading
from services.assets.usecases.deleting import delete_file

DEFAULT_PAGE = 50
MAX_PAGE = 200
MAX_URL_SECONDS = 300

_KINDS: dict[int, FileKind | None] = {
    assets_pb2.FILE_KIND_UNSPECIFIED: None,
    assets_pb2.FILE_KIND_UPLOAD: FileKind.UPLOAD,
    assets_pb2.FILE_KIND_GENERATED: FileKind.GENERATED,
    assets_pb2.FILE_KIND_ARCHIVE: FileKind.ARCHIVE,
}


class FileDoors(Doors):
    """Requests about files; the team is the token's."""

    async def UploadFile(
        self, request_iterator: AsyncIterator[assets_pb2.UploadFileRequest], context: Any
    ) -> assets_pb2.UploadFileResponse:
        """Stores one photo."""
        stream: PartStream[assets_pb2.UploadHeader] = PartStream(request_iterator, self._means.pace)
        header = await stream.header()
        key = request_key(current_caller().team, header)
        max_bytes = self._means.deps.figures.upload.max_bytes
        file = await self._means.upload(
            key, lambda: upload_of(header, max_bytes, "header."), stream
        )
        return assets_pb2.UploadFileResponse(file=file_message(file))

    async def GetFile(
        self, request: assets_pb2.GetFileRequest, context: Any
    ) -> assets_pb2.GetFileResponse:
        """One file's facts."""
        _check_file_id(request.file_id)
        file = await reading.get_file(self._means.deps, current_caller().team, request.file_id)
        return assets_pb2.GetFileResponse(file=file_message(file))

    async def ListFiles(
        self, request: assets_pb2.ListFilesRequest, context: Any
    ) -> assets_pb2.ListFilesResponse:
        """A page of files, newest first."""
        team = current_caller().team
        with checking() as check:
            check.one_of(request.kind, _KINDS, "kind")
            check.within(request.job_id, 0, MAX_ID, "job_id")
        which = FileFilter(_KINDS[request.kind], request.job_id)
        limit = page_size(request.page_size, default=DEFAULT_PAGE, most=MAX_PAGE)
        scope = ("ListFiles", team, which)
        before = self._means.tokens.open(request.page_token, *scope)
        files = await reading.list_files(
            self._means.deps, team, which, before_id=before, limit=limit + 1
        )
        return assets_pb2.ListFilesResponse(
            files=[file_message(file) for file in files[:limit]],
            next_page_token=self._means.next_page([f.id for f in files], limit, *scope),
        )

    async def DownloadFile(
        self, request: assets_pb2.DownloadFileRequest, context: Any
    ) -> AsyncIterator[assets_pb2.DownloadFileResponse]:
        """A file's facts, then its bytes."""
        _check_file_id(request.file_id)
        file = await self._shown(request.file_id)
        yield assets_pb2.DownloadFileResponse(file=file_message(file))
        async with aclosing(reading.read_file(self._means.deps, file)) as chunks:
            async for chunk in chunks:
                yield assets_pb2.DownloadFileResponse(chunk=chunk)

    async def CreateDownloadUrl(
        self, request: assets_pb2.CreateDownloadUrlRequest, context: Any
    ) -> assets_pb2.CreateDownloadUrlResponse:
        """A URL a browser can fetch."""
        with checking() as check:
            check.id(request.file_id, "file_id")
            check.within(request.ttl_seconds, 0, MAX_URL_SECONDS, "ttl_seconds")
        file = await self._shown(request.file_id)
        url = await reading.create_download_url(
            self._means.deps, file, request.ttl_seconds or MAX_URL_SECONDS
        )
        return assets_pb2.CreateDownloadUrlResponse(
            url=url.url, expire_time=timestamp(url.expires_at)
        )

    async def DeleteFile(
        self, request: assets_pb2.DeleteFileRequest, context: Any
    ) -> assets_pb2.DeleteFileResponse:
        """Deletes a file."""
        _check_file_id(request.file_id)
        await delete_file(self._means.deps, current_caller().team, request.file_id)
        return assets_pb2.DeleteFileResponse()

    async def _shown(self, file_id: int) -> File:
        caller = current_caller()
        return await reading.get_shown_file(
            self._means.deps, caller.team, file_id, reviewer=REVIEW_SCOPE in caller.scopes
        )


def _check_file_id(file_id: int) -> None:
    with checking() as check:
        check.id(file_id, "file_id")
