"""EnqueueService: jobs."""

from __future__ import annotations

from typing import Any

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.auth import current_caller
from libs.common.canonical import request_key
from libs.common.checks import MAX_ID, Violations, checking
from libs.common.paging import page_size
from services.enqueue.domain import JobState
from services.enqueue.servicer.convert import (
    event_message,
    job_message,
    timestamp,
)
from services.enqueue.servicer.drafts import (
    MAX_LABEL_CHARS,
    edit_draft,
    generation_draft,
)
from services.enqueue.servicer.means import Doors
from services.enqueue.servicer.times import time_of
from services.enqueue.store.jobs import JobFilter
from services.enqueue.usecases import explaining, reading

DEFAULT_PAGE = 50
MAX_PAGE = 200
# Jobs with long texts end a page early: clients take messages of 4 MiB.
MAX_PAGE_BYTES = 3 * 1024**2
DEFAULT_EVENTS = 100
MAX_EVENTS = 1000

_STATES = {value: name.removeprefix("JOB_STATE_") for name, value in job_pb2.JobState.items()}
_TYPES = {
    job_pb2.JOB_TYPE_UNSPECIFIED: "",
    job_pb2.JOB_TYPE_IMAGE_GENERATION: "image_generation",
    job_pb2.JOB_TYPE_IMAGE_EDIT: "image_edit",
}


class JobDoors(Doors):
    """Requests about jobs; the team is the token's."""

    async def EnqueueGeneration(
        self, request: enqueue_pb2.EnqueueGenerationRequest, context: Any
    ) -> enqueue_pb2.EnqueueGenerationResponse:
        """Enqueues one generation."""
        team = current_caller().team
        key = request_key(team, "EnqueueGeneration", request)
        job = await self._means.enqueue(key, lambda: generation_draft(team, request))
        return enqueue_pb2.EnqueueGenerationResponse(job=job_message(job))

    async def EnqueueEdit(
        self, request: enqueue_pb2.EnqueueEditRequest, context: Any
    ) -> enqueue_pb2.EnqueueEditResponse:
        """Enqueues one edit."""
        team = current_caller().team
        key = request_key(team, "EnqueueEdit", request)
        job = await self._means.enqueue(key, lambda: edit_draft(team, request))
        return enqueue_pb2.EnqueueEditResponse(job=job_message(job))

    async def GetJob(
        self, request: enqueue_pb2.GetJobRequest, context: Any
    ) -> enqueue_pb2.GetJobResponse:
        """One job as it stands."""
        _check_job_id(request.job_id)
        job = await reading.get_job(self._means.deps, current_caller().team, request.job_id)
        return enqueue_pb2.GetJobResponse(job=job_message(job))

    async def ListJobs(
        self, request: enqueue_pb2.ListJobsRequest, context: Any
    ) -> enqueue_pb2.ListJobsResponse:
        """A page of jobs, newest first."""
        team = current_caller().team
        with checking() as check:
            which = _filter(request, check)
        limit = page_size(request.page_size, default=DEFAULT_PAGE, most=MAX_PAGE)
        scope = ("ListJobs", team, which)
        before = self._means.tokens.open(request.page_token, *scope)
        jobs = await reading.list_jobs(
            self._means.deps, team, which, before_id=before, limit=limit + 1
        )
        page = _within_bytes([job_message(job) for job in jobs[:limit]])
        token = self._means.tokens.seal(page[-1].id, *scope) if len(jobs) > len(page) else ""
        return enqueue_pb2.ListJobsResponse(jobs=page, next_page_token=token)

    async def CancelJob(
        self, request: enqueue_pb2.CancelJobRequest, context: Any
    ) -> enqueue_pb2.CancelJobResponse:
        """Cancels a job."""
        _check_job_id(request.job_id)
        caller = current_caller()
        job = await reading.cancel_job(
            self._means.deps, caller.team, request.job_id, actor=caller.subject
        )
        return enqueue_pb2.CancelJobResponse(job=job_message(job))

    async def ExplainJob(
        self, request: enqueue_pb2.ExplainJobRequest, context: Any
    ) -> enqueue_pb2.ExplainJobResponse:
        """Why a job waits."""
        _check_job_id(request.job_id)
        caller = current_caller()
        team = None if "ops" in caller.scopes else caller.team
        why = await explaining.explain_job(self._means.deps, team, request.job_id)
        return enqueue_pb2.ExplainJobResponse(
            reason=enqueue_pb2.WaitReason.Value(f"WAIT_REASON_{why.reason}"),
            sentence=why.sentence,
            state=job_pb2.JobState.Value(f"JOB_STATE_{why.job.state}"),
            position=why.position,
            live_jobs=why.live,
            live_jobs_limit=why.limit,
            workers=why.workers.count,
            slots=why.workers.slots,
            slots_taken=why.workers.taken,
            not_before=timestamp(why.not_before),
            eta=timestamp(why.eta),
        )

    async def ListJobEvents(
        self, request: enqueue_pb2.ListJobEventsRequest, context: Any
    ) -> enqueue_pb2.ListJobEventsResponse:
        """A page of a job's events."""
        with checking() as check:
            check.id(request.job_id, "job_id")
            check.check(request.after_sequence >= 0, "after_sequence", "must not be negative")
        limit = page_size(request.page_size, default=DEFAULT_EVENTS, most=MAX_EVENTS)
        events, more = await reading.list_events(
            self._means.deps,
            current_caller().team,
            request.job_id,
            after=request.after_sequence,
            limit=limit,
        )
        return enqueue_pb2.ListJobEventsResponse(
            events=[event_message(event) for event in events], more=more
        )


def _check_job_id(job_id: int) -> None:
    with checking() as check:
        check.id(job_id, "job_id")


def _within_bytes(jobs: list[job_pb2.Job]) -> list[job_pb2.Job]:
    """As many of the first as one message may hold, and at least one."""
    total = 0
    for count, job in enumerate(jobs):
        total += job.ByteSize()
        if total > MAX_PAGE_BYTES:
            return jobs[: max(1, count)]
    return jobs


def _filter(request: enqueue_pb2.ListJobsRequest, check: Violations) -> JobFilter:
    check.one_of(request.type, _TYPES, "type")
    check.text(request.variant, MAX_LABEL_CHARS, "variant")
    check.within(request.batch_id, 0, MAX_ID, "batch_id")
    check.check(len(request.states) <= len(_STATES), "states", "has too many values")
    states = []
    for position, state in enumerate(request.states[: len(_STATES)]):
        if check.check(
            state in _STATES and state != job_pb2.JOB_STATE_UNSPECIFIED,
            f"states[{position}]",
            "is not a state this server knows",
        ):
            states.append(JobState(_STATES[state]))
    return JobFilter(
        states=tuple(states),
        type=_TYPES.get(request.type, ""),
        variant=request.variant,
        batch_id=request.batch_id,
        created_from=time_of(request, "created_from", check),
        created_before=time_of(request, "created_before", check),
    )
