"""AssetsOpsService: the knobs of assets, for operators."""

from __future__ import annotations

from typing import Any

from contentshop.assets.v1 import assets_pb2, assets_pb2_grpc
from libs.common.auth import current_caller
from libs.common.checks import MAX_ID, checking
from services.assets.servicer.headers import check_team
from services.assets.usecases.calling import CallLimits
from services.assets.usecases.deps import Deps
from services.assets.usecases.storing import set_team_storage

MAX_CALLS_PER_MINUTE = 1_000_000
_LIMITS = ("max_stored_bytes", "calls_per_minute")


class AssetsOpsServicer(assets_pb2_grpc.AssetsOpsServiceServicer):
    """Requests of operators; each names the team."""

    def __init__(self, deps: Deps, calls: CallLimits) -> None:
        self._deps = deps
        self._calls = calls

    async def SetTeamStorage(
        self, request: assets_pb2.SetTeamStorageRequest, context: Any
    ) -> assets_pb2.SetTeamStorageResponse:
        """Sets a team's limits."""
        with checking() as check:
            check_team(check, request.team)
            check.within(request.max_stored_bytes, 0, MAX_ID, "max_stored_bytes")
            check.within(request.calls_per_minute, 0, MAX_CALLS_PER_MINUTE, "calls_per_minute")
        said = {field.name: value for field, value in request.ListFields()}
        limits = {name: said[name] or None for name in _LIMITS if name in said}
        actor = current_caller().subject
        row = await set_team_storage(self._deps, request.team, limits, actor=actor)
        await self._calls.refresh(self._deps.db)  # here it counts at once
        return assets_pb2.SetTeamStorageResponse(
            max_stored_bytes=row.max_stored_bytes or self._deps.figures.max_stored_bytes,
            calls_per_minute=row.calls_per_minute or self._calls.default,
        )
