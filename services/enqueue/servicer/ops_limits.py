"""OpsService: limits of teams and models, and lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contentshop.enqueue.v1 import ops_pb2
from libs.common.auth import current_caller
from libs.common.checks import checking
from services.enqueue.servicer.checks import known_lane, required_team
from services.enqueue.servicer.means import Doors, Means
from services.enqueue.servicer.ops_figures import model_message
from services.enqueue.usecases import operating
from services.enqueue.usecases.governing import Governor
from services.enqueue.usecases.operating import TeamRates

MAX_LIVE_JOBS = 10_000
MAX_CALLS_PER_MINUTE = 1_000_000
MAX_REASON_CHARS = 200
MAX_MODEL_CHARS = 128


class LimitDoors(Doors):
    """Knobs of operators; each turn is audited.

    Args:
        means: shared means.
        governor: keeps to the models' limits.
        rates: keeps to the teams' call rates.
        wake_sweep: rings soon for what is due.
    """

    def __init__(
        self, means: Means, governor: Governor, rates: TeamRates, wake_sweep: Callable[[], None]
    ) -> None:
        super().__init__(means)
        self._governor = governor
        self._rates = rates
        self._wake_sweep = wake_sweep

    async def SetTeamLimits(
        self, request: ops_pb2.SetTeamLimitsRequest, context: Any
    ) -> ops_pb2.SetTeamLimitsResponse:
        """Sets a team's limits."""
        changes: dict[str, int] = {}
        with checking() as check:
            required_team(request.team, check)
            if request.HasField("max_live_jobs"):
                changes["max_live_jobs"] = request.max_live_jobs
                check.within(request.max_live_jobs, 0, MAX_LIVE_JOBS, "max_live_jobs")
            if request.HasField("calls_per_minute"):
                changes["calls_per_minute"] = request.calls_per_minute
                check.within(request.calls_per_minute, 0, MAX_CALLS_PER_MINUTE, "calls_per_minute")
        deps = self._means.deps
        actor = current_caller().subject
        limits = await operating.set_team_limits(deps, request.team, changes, actor)
        live = limits.max_live_jobs
        return ops_pb2.SetTeamLimitsResponse(
            max_live_jobs=deps.limits.live_jobs_per_team if live is None else live,
            calls_per_minute=self._rates.set(request.team, limits.calls_per_minute),
        )

    async def PauseLane(
        self, request: ops_pb2.PauseLaneRequest, context: Any
    ) -> ops_pb2.PauseLaneResponse:
        """Pauses a lane."""
        with checking() as check:
            known_lane(request.lane, check)
            check.text(request.reason, MAX_REASON_CHARS, "reason")
        actor = current_caller().subject
        await operating.pause_lane(self._means.deps, request.lane, request.reason, actor)
        return ops_pb2.PauseLaneResponse()

    async def ResumeLane(
        self, request: ops_pb2.ResumeLaneRequest, context: Any
    ) -> ops_pb2.ResumeLaneResponse:
        """Resumes a lane."""
        with checking() as check:
            known_lane(request.lane, check)
        actor = current_caller().subject
        await operating.resume_lane(self._means.deps, request.lane, actor, self._wake_sweep)
        return ops_pb2.ResumeLaneResponse()

    async def SetModelLimit(
        self, request: ops_pb2.SetModelLimitRequest, context: Any
    ) -> ops_pb2.SetModelLimitResponse:
        """Sets a model's limit."""
        with checking() as check:
            check.text(request.model, MAX_MODEL_CHARS, "model", required=True)
            check.within(request.calls_per_minute, 0, MAX_CALLS_PER_MINUTE, "calls_per_minute")
        actor = current_caller().subject
        state = await self._governor.set_limit(request.model, request.calls_per_minute, actor)
        return ops_pb2.SetModelLimitResponse(model=model_message(state))
