"""GetStorage: what a team stores."""

from __future__ import annotations

from typing import Any

from contentshop.assets.v1 import assets_pb2
from libs.common.auth import current_caller
from services.assets.servicer.means import Doors
from services.assets.usecases.storing import get_storage


class StorageDoors(Doors):
    """How much a team stores."""

    async def GetStorage(
        self, request: assets_pb2.GetStorageRequest, context: Any
    ) -> assets_pb2.GetStorageResponse:
        """How much it is, and how much it may be."""
        used = await get_storage(self._means.deps, current_caller().team)
        return assets_pb2.GetStorageResponse(
            stored_bytes=used.stored_bytes, max_stored_bytes=used.max_stored_bytes
        )
