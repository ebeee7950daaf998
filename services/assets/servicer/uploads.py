"""AssetsService: uploads by URL."""

from __future__ import annotations

from typing import Any

from contentshop.assets.v1 import assets_pb2
from libs.common import canonical
from libs.common.auth import current_caller
from libs.common.checks import checking
from services.assets.servicer.convert import file_message, timestamp
from services.assets.servicer.headers import upload_of
from services.assets.servicer.means import Doors
from services.assets.usecases.completing import create_upload


class UploadDoors(Doors):
    """Requests about uploads whose bytes are put by URL; the team is the token's."""

    async def CreateUpload(
        self, request: assets_pb2.CreateUploadRequest, context: Any
    ) -> assets_pb2.CreateUploadResponse:
        """A URL to put one photo to."""
        key = canonical.request_key(current_caller().team, "CreateUpload", request)
        deps = self._means.deps
        max_bytes = deps.figures.upload.max_bytes
        put = await create_upload(deps, key, lambda: upload_of(request, max_bytes, ""))
        return assets_pb2.CreateUploadResponse(
            upload_id=put.upload_id, url=put.url, expire_time=timestamp(put.expires_at)
        )

    async def CompleteUpload(
        self, request: assets_pb2.CompleteUploadRequest, context: Any
    ) -> assets_pb2.CompleteUploadResponse:
        """Makes what was put a file."""
        with checking() as check:
            check.id(request.upload_id, "upload_id")
        file = await self._means.complete(current_caller().team, request.upload_id)
        return assets_pb2.CompleteUploadResponse(file=file_message(file))
