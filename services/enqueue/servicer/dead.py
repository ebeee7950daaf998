"""OpsService: dead jobs."""

from __future__ import annotations

from typing import Any

from contentshop.enqueue.v1 import ops_pb2
from libs.common.auth import current_caller
from libs.common.canonical import request_key
from libs.common.checks import checking
from libs.common.paging import page_size
from services.enqueue.domain import Job
from services.enqueue.servicer.convert import fault_message, timestamp
from services.enqueue.servicer.means import Doors
from services.enqueue.usecases import retrying

DEFAULT_PAGE = 50
MAX_PAGE = 200
MAX_TEAM_CHARS = 64


class DeadDoors(Doors):
    """Requests of operators about jobs whose attempts or workers were used up."""

    async def ListDeadJobs(
        self, request: ops_pb2.ListDeadJobsRequest, context: Any
    ) -> ops_pb2.ListDeadJobsResponse:
        """A page of dead jobs, newest first."""
        with checking() as check:
            check.text(request.team, MAX_TEAM_CHARS, "team")
        limit = page_size(request.page_size, default=DEFAULT_PAGE, most=MAX_PAGE)
        scope = ("ListDeadJobs", request.team)
        before = self._means.tokens.open(request.page_token, *scope)
        found = await retrying.list_dead(
            self._means.deps, request.team, before_id=before, limit=limit + 1
        )
        token = self._means.tokens.seal(found[limit - 1].id, *scope) if len(found) > limit else ""
        return ops_pb2.ListDeadJobsResponse(
            jobs=[_dead_message(job) for job in found[:limit]], next_page_token=token
        )

    async def RequeueDeadJob(
        self, request: ops_pb2.RequeueDeadJobRequest, context: Any
    ) -> ops_pb2.RequeueDeadJobResponse:
        """Runs a dead job again, for its team."""
        with checking() as check:
            check.request_id(request.request_id)
            check.id(request.job_id, "job_id")
        team = await retrying.team_of_dead(self._means.deps, request.job_id)
        key = request_key(team, "RequeueDeadJob", request)
        job = await self._means.retry.job(
            key, request.job_id, only_missing=True, requeued_by=current_caller().subject
        )
        return ops_pb2.RequeueDeadJobResponse(job_id=job.id)


def _dead_message(job: Job) -> ops_pb2.DeadJob:
    return ops_pb2.DeadJob(
        job_id=job.id,
        team=job.spec.team,
        lane=job.spec.lane,
        error=fault_message(job.fault),
        attempts=job.attempts,
        lost_workers=job.lost_workers,
        finish_time=timestamp(job.finished_at),
    )
