"""Calls to enqueue's ExecutionService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from contentshop.enqueue.v1 import execution_pb2 as pb
from contentshop.enqueue.v1 import execution_pb2_grpc, job_pb2
from libs.common.clock import Clock
from libs.common.grpc_client import RpcClient
from libs.common.outcomes import Outcome
from services.worker.domain import Claim, HandBack, ImageToMake, InputImage, Lease, StoredImage
from services.worker.gateways.patience import Patience
from services.worker.generation import CallGrant, CallTally, Usage

CALL_SECONDS = 5.0
# What enqueue takes; a longer word of a provider must not cost the job.
MAX_MESSAGE_CHARS = 500
MAX_MODEL_CHARS = 128
MAX_RETRY_SECONDS = 3600.0

_QUALITIES: Mapping[int, str] = {job_pb2.QUALITY_HIGH: "high"}  # all else means fast
_FORMATS: Mapping[int, str] = {
    job_pb2.IMAGE_FORMAT_JPEG: "jpeg",
    job_pb2.IMAGE_FORMAT_WEBP: "webp",
}  # all else means png


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal said: the jobs that are lost, and how long the others' leases now hold."""

    lost_job_ids: frozenset[int]
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class StopCommand:
    """Stop this job, if it is held under this fence."""

    job_id: int
    fence: int


class EnqueueGateway:
    """What the worker asks of enqueue. Every call may be repeated; errors are typed.

    Writes are repeated while enqueue is away and the lease holds; `claim` and `renew` are single
    tries, since their callers know best when to ask again.
    """

    def __init__(self, client: RpcClient, *, worker: str, patience: Patience, clock: Clock) -> None:
        self._client = client
        self._stub = execution_pb2_grpc.ExecutionServiceStub(client.channel)
        self._worker = worker
        self._patience = patience
        self._clock = clock

    def ready(self) -> bool:
        """Whether the channel is connected."""
        return self._client.ready()

    async def claim(self, job_id: int, claim_id: str) -> Claim:
        """Takes a job, by one try.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: it is not to be claimed now; forget the doorbell.
        """
        # The lease is counted from before the call: on this side it may only seem too short.
        asked_at = self._clock.monotonic()
        request = pb.ClaimJobRequest(job_id=job_id, claim_id=claim_id, worker=self._worker)
        answer: pb.ClaimJobResponse = await self._client.unary(
            self._stub.ClaimJob, request, timeout_seconds=CALL_SECONDS
        )
        return _claim(answer, asked_at)

    async def renew(
        self,
        leases: Sequence[Lease],
        lanes: Sequence[str],
        slots: int,
        *,
        fresh: bool,
        timeout_seconds: float = CALL_SECONDS,
    ) -> Renewal:
        """Renews all leases, by one try; says that the worker lives, with none as well.

        Fresh: it has not claimed anything yet, and what runs under its name is a dead process's.
        """
        request = pb.RenewLeasesRequest(
            worker=self._worker,
            leases=[pb.HeldLease(job_id=one.job_id, fence=one.fence) for one in leases],
            lanes=lanes,
            slots=slots,
            fresh=fresh,
        )
        answer: pb.RenewLeasesResponse = await self._client.unary(
            self._stub.RenewLeases, request, timeout_seconds=timeout_seconds
        )
        return Renewal(frozenset(answer.lost_job_ids), answer.lease_ms / 1000)

    async def watch(self) -> AsyncGenerator[StopCommand | None, None]:
        """Commands as they come, None for a heartbeat, until the stream ends or fails."""
        request = pb.WatchWorkerRequest(worker=self._worker)
        stream = cast(
            "AsyncGenerator[pb.WatchWorkerResponse, None]",
            self._client.stream(self._stub.WatchWorker, request),
        )
        async with aclosing(stream) as answers:  # the call ends with us, not with the collector
            async for answer in answers:
                if answer.WhichOneof("command") == "stop":
                    yield StopCommand(answer.stop.job_id, answer.stop.fence)
                else:
                    yield None

    async def record_prompt(
        self, lease: Lease, enhanced: str, enhance_ms: int
    ) -> tuple[ImageToMake, ...]:
        """Keeps the enhanced prompt, empty for the original; the images' prompts. LeaseLostError.

        The first that was kept stays: another worker's words may come back.
        """
        request = pb.RecordPromptRequest(
            job_id=lease.job_id, fence=lease.fence, enhanced=enhanced, enhance_ms=enhance_ms
        )
        answer: pb.RecordPromptResponse = await self._patience.ask(
            lambda: self._client.unary(
                self._stub.RecordPrompt, request, timeout_seconds=CALL_SECONDS
            ),
            lease=lease,
            what="RecordPrompt",
        )
        return _images(answer.images)

    async def acquire_calls(self, lease: Lease, model: str, calls: int) -> CallGrant:
        """Leave to call a model. LeaseLostError."""
        request = pb.AcquireCallsRequest(
            job_id=lease.job_id, fence=lease.fence, model=model[:MAX_MODEL_CHARS], calls=calls
        )
        answer: pb.AcquireCallsResponse = await self._patience.ask(
            lambda: self._client.unary(
                self._stub.AcquireCalls, request, timeout_seconds=CALL_SECONDS
            ),
            lease=lease,
            what="AcquireCalls",
        )
        return CallGrant(answer.granted, answer.wait_ms / 1000)

    async def report_calls(self, model: str, tally: CallTally) -> None:
        """Says how calls went, by one try."""
        request = pb.ReportCallsRequest(
            model=model[:MAX_MODEL_CHARS],
            ok=tally.ok,
            rate_limited=tally.rate_limited,
            failed=tally.failed,
            retry_after_ms=round(min(tally.retry_after_seconds, MAX_RETRY_SECONDS) * 1000),
        )
        await self._client.unary(self._stub.ReportCalls, request, timeout_seconds=CALL_SECONDS)

    async def record_image(
        self, lease: Lease, index: int, stored: StoredImage, model: str, usage: Usage
    ) -> int:
        """Settles a slot as DONE; the file id that stands there. LeaseLostError."""
        request = pb.RecordImageRequest(
            job_id=lease.job_id,
            fence=lease.fence,
            index=index,
            file_id=stored.file_id,
            content_type=stored.content_type,
            width=stored.width,
            height=stored.height,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            model=model[:MAX_MODEL_CHARS],
            usage=job_pb2.Usage(
                prompt_tokens=usage.prompt_tokens,
                output_tokens=usage.output_tokens,
                total_tokens=usage.total_tokens,
                cost_micros=usage.cost_micros,
            ),
        )
        answer: pb.RecordImageResponse = await self._patience.ask(
            lambda: self._client.unary(
                self._stub.RecordImage, request, timeout_seconds=CALL_SECONDS
            ),
            lease=lease,
            what="RecordImage",
        )
        return answer.image.file_id

    async def record_failure(
        self, lease: Lease, index: int, outcome: Outcome, message: str
    ) -> None:
        """Settles a slot as given up. LeaseLostError."""
        request = pb.RecordImageFailureRequest(
            job_id=lease.job_id,
            fence=lease.fence,
            index=index,
            outcome=outcome.value,
            message=message[:MAX_MESSAGE_CHARS],
        )
        await self._patience.ask(
            lambda: self._client.unary(
                self._stub.RecordImageFailure, request, timeout_seconds=CALL_SECONDS
            ),
            lease=lease,
            what="RecordImageFailure",
        )

    async def finish(self, lease: Lease) -> str:
        """Ends a settled job; its final state's name. LeaseLostError, FailedPreconditionError."""
        request = pb.FinishJobRequest(job_id=lease.job_id, fence=lease.fence)
        answer: pb.FinishJobResponse = await self._patience.ask(
            lambda: self._client.unary(self._stub.FinishJob, request, timeout_seconds=CALL_SECONDS),
            lease=lease,
            what="FinishJob",
        )
        return _state(answer.state)

    async def release(
        self, lease: Lease, why: HandBack | None, *, limit_seconds: float | None = None
    ) -> str:
        """Gives a job back: to wait (why), or for the worker's leaving (None). LeaseLostError.

        The answer to a repeat of a release that landed is LeaseLostError too.
        """
        request = pb.ReleaseJobRequest(
            job_id=lease.job_id, fence=lease.fence, cause=pb.RELEASE_CAUSE_DRAIN
        )
        if why is not None:
            request.cause = pb.RELEASE_CAUSE_BACKOFF
            request.outcome = why.outcome.value
            request.message = why.message[:MAX_MESSAGE_CHARS]
            wait = min(why.retry_after_seconds, MAX_RETRY_SECONDS)
            request.retry_after_ms = round(wait * 1000)
        answer: pb.ReleaseJobResponse = await self._patience.ask(
            lambda: self._client.unary(
                self._stub.ReleaseJob, request, timeout_seconds=CALL_SECONDS
            ),
            lease=lease,
            what="ReleaseJob",
            limit_seconds=limit_seconds,
        )
        return _state(answer.state)


def _claim(answer: pb.ClaimJobResponse, asked_at: float) -> Claim:
    spec = answer.spec
    return Claim(
        lease=Lease(spec.job_id, answer.fence, asked_at + answer.lease_ms / 1000),
        attempt=answer.attempt,
        team=spec.team,
        lane=spec.lane,
        quality=_QUALITIES.get(spec.quality, "fast"),
        format=_FORMATS.get(spec.format, "png"),
        aspect_ratio=spec.aspect_ratio,
        count=spec.number_of_variations,
        inputs=tuple(InputImage(one.role, one.file_id) for one in spec.inputs),
        images=_images(answer.images),
        may_hand_back=spec.may_hand_back,
        prompt_to_enhance=(
            spec.prompt if spec.prompt_strategy == job_pb2.PROMPT_STRATEGY_GEMINI else ""
        ),
    )


def _images(images: Sequence[pb.ImageToMake]) -> tuple[ImageToMake, ...]:
    return tuple(ImageToMake(one.index, one.prompt) for one in images)


def _state(value: int) -> str:
    """A state's name; a number where it is of a later version."""
    known = job_pb2.JobState.DESCRIPTOR.values_by_number.get(value)
    return known.name.removeprefix("JOB_STATE_") if known else str(value)
