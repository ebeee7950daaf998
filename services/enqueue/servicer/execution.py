"""ExecutionService: the door for workers and the packager."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from contentshop.enqueue.v1 import execution_pb2, execution_pb2_grpc, job_pb2
from libs.common.broker import LANES
from libs.common.checks import Violations, checking
from libs.common.errors import UnavailableError
from libs.common.outcomes import Outcome
from services.enqueue.domain import Archive, ArchiveState, Fault, Job, MadeImage, Usage
from services.enqueue.servicer.convert import image_message
from services.enqueue.servicer.drafts import FORMATS, MAX_VARIATIONS, QUALITIES
from services.enqueue.servicer.governing import CallDoors
from services.enqueue.servicer.prompting import PromptDoors, images_to_make
from services.enqueue.store.leases import Presence
from services.enqueue.usecases import archiving, batches, executing
from services.enqueue.usecases.deps import Deps
from services.enqueue.usecases.executing import Held
from services.enqueue.usecases.governing import Governor
from services.enqueue.usecases.reviewing import hidden
from services.enqueue.wakeups import Stop, WakeUp

MAX_NAME_CHARS = 128
MAX_MESSAGE_CHARS = 500
MAX_LEASES = 1000
MAX_IMAGE_SIDE = 2**31 - 1
MAX_RETRY_MS = 3600 * 1000
HEARTBEAT_SECONDS = 10.0
_SHA256 = re.compile(r"[0-9a-f]{64}")

_QUALITY_VALUES = {name: value for value, name in QUALITIES.items()}
_FORMAT_VALUES = {name: value for value, name in FORMATS.items()}


class WorkerCommands:
    """Carries stop commands to the workers whose streams are open here."""

    def __init__(self) -> None:
        self._queues: dict[str, list[tuple[deque[Stop], asyncio.Event]]] = {}
        self._closing = False

    def heard(self, wake_up: WakeUp) -> None:
        """Passes stops on to the streams of their workers."""
        for stop in wake_up.stops:
            for queue, filled in self._queues.get(stop.worker, ()):
                queue.append(stop)
                filled.set()

    def send_away(self) -> None:
        """Ends every stream; workers come back to another replica."""
        self._closing = True
        for queues in self._queues.values():
            for _, filled in queues:
                filled.set()

    async def listen(self, worker: str, heartbeat_seconds: float) -> AsyncIterator[Stop | None]:
        """The worker's stops as they come; None at once and after each silence."""
        place = (deque[Stop](), asyncio.Event())
        queue, filled = place
        self._queues.setdefault(worker, []).append(place)
        try:
            yield None
            while not self._closing:
                try:
                    async with asyncio.timeout(heartbeat_seconds):
                        await filled.wait()
                except TimeoutError:
                    yield None
                filled.clear()
                while queue:
                    yield queue.popleft()
            raise UnavailableError("the server is going away", reason="GOING_AWAY")
        finally:
            self._queues[worker].remove(place)
            if not self._queues[worker]:
                del self._queues[worker]


class ExecutionServicer(CallDoors, PromptDoors, execution_pb2_grpc.ExecutionServiceServicer):
    """Requests of workers; the fence says whether they still may."""

    def __init__(self, deps: Deps, commands: WorkerCommands, governor: Governor) -> None:
        self._deps = deps
        self._commands = commands
        self._governor = governor

    async def ClaimJob(
        self, request: execution_pb2.ClaimJobRequest, context: Any
    ) -> execution_pb2.ClaimJobResponse:
        """Takes an admitted job."""
        with checking() as check:
            check.id(request.job_id, "job_id")
            check.text(request.claim_id, MAX_NAME_CHARS, "claim_id", required=True)
            check.text(request.worker, MAX_NAME_CHARS, "worker", required=True)
        job = await executing.claim_job(
            self._deps, request.job_id, request.claim_id, request.worker
        )
        return execution_pb2.ClaimJobResponse(
            fence=job.fence,
            lease_ms=self._lease_ms(),
            spec=_spec_message(job),
            images=images_to_make(job),
            attempt=job.attempts + job.lost_workers,
        )

    async def RenewLeases(
        self, request: execution_pb2.RenewLeasesRequest, context: Any
    ) -> execution_pb2.RenewLeasesResponse:
        """Renews all leases of a worker."""
        with checking() as check:
            check.text(request.worker, MAX_NAME_CHARS, "worker", required=True)
            if check.check(
                len(request.leases) <= MAX_LEASES, "leases", f"takes at most {MAX_LEASES}"
            ):
                for position, lease in enumerate(request.leases):
                    check.id(lease.job_id, f"leases[{position}].job_id")
                    check.id(lease.fence, f"leases[{position}].fence")
            if check.check(
                len(request.lanes) <= len(LANES), "lanes", f"takes at most {len(LANES)}"
            ):
                check.check(set(request.lanes) <= set(LANES), "lanes", "names an unknown lane")
            check.within(request.slots, 0, MAX_LEASES, "slots")
            check.check(not (request.fresh and request.leases), "fresh", "goes without leases")
        presence = Presence(request.worker, tuple(request.lanes), request.slots)
        held = {lease.job_id: lease.fence for lease in request.leases}
        lost = await executing.renew_leases(self._deps, presence, held, fresh=request.fresh)
        return execution_pb2.RenewLeasesResponse(lost_job_ids=lost, lease_ms=self._lease_ms())

    async def WatchWorker(
        self, request: execution_pb2.WatchWorkerRequest, context: Any
    ) -> AsyncIterator[execution_pb2.WatchWorkerResponse]:
        """Streams stop commands to a worker."""
        with checking() as check:
            check.text(request.worker, MAX_NAME_CHARS, "worker", required=True)
        async for stop in self._commands.listen(request.worker, HEARTBEAT_SECONDS):
            message = execution_pb2.WatchWorkerResponse()
            if stop is None:
                message.heartbeat.SetInParent()
            else:
                message.stop.job_id = stop.job_id
                message.stop.fence = stop.fence
            yield message

    async def RecordImage(
        self, request: execution_pb2.RecordImageRequest, context: Any
    ) -> execution_pb2.RecordImageResponse:
        """Records one made image."""
        with checking() as check:
            _check_held(request, check)
            check.within(request.index, 1, MAX_VARIATIONS, "index")
            check.id(request.file_id, "file_id")
            check.text(request.content_type, MAX_NAME_CHARS, "content_type", required=True)
            check.within(request.width, 1, MAX_IMAGE_SIDE, "width")
            check.within(request.height, 1, MAX_IMAGE_SIDE, "height")
            check.check(request.size_bytes > 0, "size_bytes", "must be positive")
            sha256 = _SHA256.fullmatch(request.sha256) is not None
            check.check(sha256, "sha256", "must be 64 hex digits, lower case")
            check.text(request.model, MAX_NAME_CHARS, "model")
            for name in ("prompt_tokens", "output_tokens", "total_tokens", "cost_micros"):
                count = getattr(request.usage, name)
                check.check(count >= 0, f"usage.{name}", "must not be negative")
        made = MadeImage(
            file_id=request.file_id,
            content_type=request.content_type,
            width=request.width,
            height=request.height,
            size_bytes=request.size_bytes,
            sha256=request.sha256,
            model=request.model,
            usage=Usage(
                request.usage.prompt_tokens,
                request.usage.output_tokens,
                request.usage.total_tokens,
                request.usage.cost_micros,
            ),
        )
        held = Held(request.job_id, request.fence)
        image = await executing.record_image(self._deps, held, request.index, made)
        return execution_pb2.RecordImageResponse(image=image_message(image))

    async def RecordImageFailure(
        self, request: execution_pb2.RecordImageFailureRequest, context: Any
    ) -> execution_pb2.RecordImageFailureResponse:
        """Records that one image is given up."""
        with checking() as check:
            _check_held(request, check)
            check.within(request.index, 1, MAX_VARIATIONS, "index")
            check.text(request.message, MAX_MESSAGE_CHARS, "message")
            outcome = _outcome(request.outcome, check)
        image = await executing.record_image_failure(
            self._deps,
            Held(request.job_id, request.fence),
            request.index,
            Fault(outcome.value, request.message),
        )
        return execution_pb2.RecordImageFailureResponse(image=image_message(image))

    async def FinishJob(
        self, request: execution_pb2.FinishJobRequest, context: Any
    ) -> execution_pb2.FinishJobResponse:
        """Ends a settled job."""
        with checking() as check:
            _check_held(request, check)
        state = await executing.finish_job(self._deps, Held(request.job_id, request.fence))
        return execution_pb2.FinishJobResponse(state=job_pb2.JobState.Value(f"JOB_STATE_{state}"))

    async def ReleaseJob(
        self, request: execution_pb2.ReleaseJobRequest, context: Any
    ) -> execution_pb2.ReleaseJobResponse:
        """Gives a job back."""
        drain = execution_pb2.RELEASE_CAUSE_DRAIN
        backoff = execution_pb2.RELEASE_CAUSE_BACKOFF
        with checking() as check:
            _check_held(request, check)
            check.one_of(request.cause, (drain, backoff), "cause")
            check.text(request.message, MAX_MESSAGE_CHARS, "message")
            check.within(request.retry_after_ms, 0, MAX_RETRY_MS, "retry_after_ms")
            outcome = Outcome.INTERNAL
            if request.cause == backoff:
                outcome = _outcome(request.outcome, check)
        held = Held(request.job_id, request.fence)
        if request.cause == drain:
            state = await executing.release_for_drain(self._deps, held)
        else:
            state = await executing.release_for_backoff(
                self._deps,
                held,
                outcome,
                request.message,
                request.retry_after_ms / 1000,
            )
        return execution_pb2.ReleaseJobResponse(state=job_pb2.JobState.Value(f"JOB_STATE_{state}"))

    async def GetJobOutputs(
        self, request: execution_pb2.GetJobOutputsRequest, context: Any
    ) -> execution_pb2.GetJobOutputsResponse:
        """What a job made."""
        with checking() as check:
            check.id(request.job_id, "job_id")
            check.text(request.team, MAX_NAME_CHARS, "team", required=True)
        job = await executing.get_outputs(self._deps, request.team, request.job_id)
        return execution_pb2.GetJobOutputsResponse(
            state=job_pb2.JobState.Value(f"JOB_STATE_{job.state}"),
            outputs=[
                execution_pb2.JobOutput(index=image.index, file_id=image.made.file_id)
                for image in job.images
                if image.made is not None
            ],
            number_of_variations=job.spec.count,
            finish_time_ms=int(job.finished_at.timestamp() * 1000) if job.finished_at else 0,
            hidden=hidden(self._deps, job),
        )

    async def GetBatchOutputs(
        self, request: execution_pb2.GetBatchOutputsRequest, context: Any
    ) -> execution_pb2.GetBatchOutputsResponse:
        """What a batch made."""
        with checking() as check:
            check.id(request.batch_id, "batch_id")
            check.text(request.team, MAX_NAME_CHARS, "team", required=True)
        found = await batches.get_outputs(self._deps, request.team, request.batch_id)
        ended_at = found.batch.finished_at
        return execution_pb2.GetBatchOutputsResponse(
            name=found.batch.name,
            ended=found.batch.ended,
            finish_time_ms=int(ended_at.timestamp() * 1000) if ended_at else 0,
            variants=[
                execution_pb2.VariantOutputs(
                    variant_index=variant.variant_index,
                    variant=variant.variant,
                    outputs=[
                        execution_pb2.JobOutput(index=shot, file_id=file_id)
                        for shot, file_id in variant.outputs.items()
                    ],
                )
                for variant in found.variants
            ],
        )

    async def RecordArchive(
        self, request: execution_pb2.RecordArchiveRequest, context: Any
    ) -> execution_pb2.RecordArchiveResponse:
        """Records how the zip of a job came out."""
        ready = request.state == job_pb2.ARCHIVE_STATE_READY
        with checking() as check:
            check.id(request.job_id, "job_id")
            check.text(request.team, MAX_NAME_CHARS, "team", required=True)
            check.one_of(
                request.state,
                (job_pb2.ARCHIVE_STATE_READY, job_pb2.ARCHIVE_STATE_FAILED),
                "state",
            )
            if ready:
                check.id(request.file_id, "file_id")
            check.text(request.filename, MAX_NAME_CHARS, "filename")
            check.check(request.size_bytes >= 0, "size_bytes", "must not be negative")
            check.text(request.error.reason, MAX_NAME_CHARS, "error.reason")
            check.text(request.error.message, MAX_MESSAGE_CHARS, "error.message")
        fault = None if ready else Fault(request.error.reason, request.error.message)
        archive = Archive(
            ArchiveState.READY if ready else ArchiveState.FAILED,
            request.file_id,
            request.filename,
            request.size_bytes,
            fault,
        )
        await archiving.record_archive(self._deps, request.team, request.job_id, archive)
        return execution_pb2.RecordArchiveResponse()

    def _lease_ms(self) -> int:
        return int(self._deps.limits.lease_seconds * 1000)


def _check_held(request: Any, check: Violations) -> None:
    check.id(request.job_id, "job_id")
    check.id(request.fence, "fence")


def _outcome(word: str, check: Violations) -> Outcome:
    try:
        return Outcome(word)
    except ValueError:
        check.add("outcome", "is none this server knows")
        return Outcome.INTERNAL


def _spec_message(job: Job) -> execution_pb2.JobSpec:
    spec = job.spec
    return execution_pb2.JobSpec(
        job_id=job.id,
        team=spec.team,
        lane=spec.lane,
        schema_key=spec.schema_key,
        quality=_QUALITY_VALUES[spec.quality],
        format=_FORMAT_VALUES[spec.format],
        aspect_ratio=spec.aspect_ratio,
        number_of_variations=spec.count,
        inputs=[execution_pb2.InputImage(role=i.role, file_id=i.file_id) for i in spec.inputs],
        may_hand_back=job.attempts < job.max_attempts,
        prompt_strategy=job_pb2.PROMPT_STRATEGY_GEMINI
        if spec.prompt.for_worker
        else job_pb2.PROMPT_STRATEGY_NONE,
        prompt=spec.prompt.original if spec.prompt.for_worker else "",
        source_task_id=spec.labels.source_task_id,
    )
