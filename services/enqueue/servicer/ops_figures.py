"""OpsService: the queue, and how ended jobs went."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from contentshop.enqueue.v1 import job_pb2, ops_pb2
from libs.common.checks import checking
from services.enqueue.governor import ModelState
from services.enqueue.servicer.checks import optional_team
from services.enqueue.servicer.convert import timestamp
from services.enqueue.servicer.means import Doors
from services.enqueue.servicer.times import window_of
from services.enqueue.store.figures import TeamCounts
from services.enqueue.usecases import operating
from services.enqueue.usecases.operating import LaneView


class FigureDoors(Doors):
    """Questions of operators; nothing is changed."""

    async def GetQueueStats(
        self, request: ops_pb2.GetQueueStatsRequest, context: Any
    ) -> ops_pb2.GetQueueStatsResponse:
        """What waits and runs."""
        stats = await operating.queue_stats(self._means.deps)
        default = self._means.deps.limits.live_jobs_per_team
        return ops_pb2.GetQueueStatsResponse(
            lanes=[_lane_message(view, stats.now) for view in stats.lanes],
            teams=[_team_message(one, default, stats.now) for one in stats.teams],
            models=[model_message(state) for state in stats.models],
            outbox=stats.outbox,
        )

    async def GetJobMetrics(
        self, request: ops_pb2.GetJobMetricsRequest, context: Any
    ) -> ops_pb2.GetJobMetricsResponse:
        """How ended jobs went."""
        with checking() as check:
            start, end = window_of(request, "from", "until", check)
            optional_team(request.team, check)
        found = await operating.job_metrics(self._means.deps, start, end, request.team)
        return ops_pb2.GetJobMetricsResponse(
            types=[
                ops_pb2.JobTypeMetrics(
                    type=job_pb2.JobType.Value(f"JOB_TYPE_{one.type.upper()}"),
                    total=one.total,
                    succeeded=one.succeeded,
                    failed=one.failed,
                    canceled=one.canceled,
                    mean_seconds=one.mean_seconds,
                    p50_seconds=one.p50_seconds,
                    p95_seconds=one.p95_seconds,
                    mean_wait_seconds=one.mean_wait_seconds,
                )
                for one in found
            ]
        )


def model_message(state: ModelState) -> ops_pb2.ModelStats:
    """A ModelStats."""
    return ops_pb2.ModelStats(
        model=state.model,
        calls_per_minute=state.rate,
        calls_per_minute_limit=state.limit,
        blocked_until=timestamp(state.blocked_until),
        circuit=state.circuit,
    )


def _lane_message(view: LaneView, now: datetime) -> ops_pb2.LaneStats:
    counts = view.counts
    return ops_pb2.LaneStats(
        lane=view.lane,
        waiting=counts.waiting,
        admitted=counts.admitted,
        running=counts.running,
        oldest_admitted_seconds=_age(counts.oldest_admitted_at, now),
        paused=view.paused,
        workers=view.workers.count,
        slots=view.workers.slots,
        slots_taken=view.workers.taken,
    )


def _team_message(counts: TeamCounts, default_limit: int, now: datetime) -> ops_pb2.TeamStats:
    return ops_pb2.TeamStats(
        team=counts.team,
        live=counts.live,
        live_limit=default_limit if counts.limit is None else counts.limit,
        waiting=counts.waiting,
        oldest_waiting_seconds=_age(counts.oldest_waiting_at, now),
    )


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0
