# ruff: noqa: N802, ARG002 - the names and arguments are gRPC's
"""What a worker talks to, in memory but over real gRPC: enqueue, assets and a scripted generator.

They keep the promises of the protos, and can be told to be away or to lose an answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from contentshop.assets.v1 import backend_pb2, backend_pb2_grpc
from contentshop.enqueue.v1 import execution_pb2 as pb
from contentshop.enqueue.v1 import execution_pb2_grpc, job_pb2
from libs.common.auth import Authenticator, SharedSecret
from libs.common.clock import SystemClock
from libs.common.errors import (
    ContentshopError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    LeaseLostError,
    NotFoundError,
    UnavailableError,
    UnimplementedError,
)
from libs.common.grpc_server import GrpcServer
from services.worker.generation import GeneratedImage, ImageRequest, Usage, Words

SECRET = "service-secret-of-the-worker-tests"
# Longer than any process stands still: what is to run out is skipped to, or made short.
LEASE_SECONDS = 60.0
TEAM = "acme"


class Faults:
    """What goes wrong, by method name; counts the calls."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.away: set[str] = set()
        self.lose_answers: Counter[str] = Counter()
        self.refuse: dict[str, ContentshopError] = {}
        self.held: dict[str, asyncio.Event] = {}

    def before(self, method: str) -> None:
        self.calls[method] += 1
        if method in self.away or "*" in self.away:
            raise UnavailableError("away", retry_after_seconds=0.01)
        if method in self.refuse:
            raise self.refuse[method]

    def after(self, method: str) -> None:
        if self.lose_answers[method] > 0:
            self.lose_answers[method] -= 1
            raise UnavailableError("the answer is lost", retry_after_seconds=0.01)


def server_for(service: str, name: str, register: Callable[[grpc.aio.Server], None]) -> GrpcServer:
    return GrpcServer(
        services=[name],
        register=register,
        authenticator=Authenticator(
            service=service,
            user_keys=SharedSecret(SECRET),
            user_issuer="contentshop",
            service_secret=SECRET,
            clock=SystemClock(),
        ),
        address="127.0.0.1:0",
        grace_seconds=0.2,
    )


@dataclass
class FakeJob:
    job_id: int
    count: int
    inputs: list[tuple[str, int]] = field(default_factory=list)
    may_hand_back: bool = True
    state: str = "QUEUED"
    fence: int = 0
    attempts: int = 0
    claim_id: str = ""
    images: dict[int, str] = field(default_factory=dict)  # index → DONE or FAILED
    files: dict[int, int] = field(default_factory=dict)
    errors: dict[int, tuple[str, str]] = field(default_factory=dict)
    releases: list[pb.ReleaseJobRequest] = field(default_factory=list)
    models: dict[int, str] = field(default_factory=dict)
    usages: dict[int, job_pb2.Usage] = field(default_factory=dict)
    prompt: str = ""  # to enhance, where there is one
    enhanced: str | None = None
    enhance_ms: int = -1

    def missing(self) -> list[pb.ImageToMake]:
        prompt = f"{self.enhanced or self.prompt} image".strip()
        missing = [i for i in range(1, self.count + 1) if i not in self.images]
        return [pb.ImageToMake(index=i, prompt=f"{prompt} {i}") for i in missing]


class FakeEnqueue(execution_pb2_grpc.ExecutionServiceServicer):
    def __init__(self) -> None:
        self.jobs: dict[int, FakeJob] = {}
        self.faults = Faults()
        self.lease_seconds = LEASE_SECONDS
        self.presence: pb.RenewLeasesRequest | None = None
        self.fresh: list[bool] = []  # of each renewal
        self.asks: list[pb.AcquireCallsRequest] = []
        self.reports: list[pb.ReportCallsRequest] = []
        self.leave: Callable[[pb.AcquireCallsRequest], pb.AcquireCallsResponse] | None = None
        self.watchers: list[asyncio.Queue[pb.WatchWorkerResponse | None]] = []
        self.server = server_for(
            "enqueue",
            "contentshop.enqueue.v1.ExecutionService",
            lambda s: execution_pb2_grpc.add_ExecutionServiceServicer_to_server(self, s),
        )

    def command_stop(self, job_id: int) -> None:
        job = self.jobs[job_id]
        job.state = "CANCELED"
        stop = pb.HeldLease(job_id=job_id, fence=job.fence)
        for watcher in self.watchers:
            watcher.put_nowait(pb.WatchWorkerResponse(stop=stop))

    def steal(self, job_id: int) -> None:
        """Another worker's claim."""
        self.jobs[job_id].fence += 1

    def _held(self, job_id: int, fence: int) -> FakeJob:
        job = self.jobs[job_id]
        if job.fence != fence or job.state != "RUNNING":
            raise LeaseLostError("the lease of this claim is lost")
        return job

    async def ClaimJob(self, request: pb.ClaimJobRequest, context: Any) -> pb.ClaimJobResponse:
        self.faults.before("ClaimJob")
        job = self.jobs.get(request.job_id)
        if job is None:
            raise NotFoundError("job")
        if not (job.state == "RUNNING" and job.claim_id == request.claim_id):
            if job.state != "QUEUED":
                raise FailedPreconditionError("taken", reason="JOB_NOT_CLAIMABLE")
            job.state, job.claim_id = "RUNNING", request.claim_id
            job.fence += 1
            job.attempts += 1
        self.faults.after("ClaimJob")
        return pb.ClaimJobResponse(
            fence=job.fence,
            lease_ms=round(self.lease_seconds * 1000),
            spec=pb.JobSpec(
                job_id=job.job_id,
                team=TEAM,
                lane="image_generation.fast",
                schema_key="product_scene",
                quality=job_pb2.QUALITY_HIGH,
                format=job_pb2.IMAGE_FORMAT_WEBP,
                aspect_ratio="3:4",
                number_of_variations=job.count,
                inputs=[pb.InputImage(role=r, file_id=f) for r, f in job.inputs],
                may_hand_back=job.may_hand_back,
                prompt_strategy=job_pb2.PROMPT_STRATEGY_GEMINI
                if job.prompt and job.enhanced is None
                else job_pb2.PROMPT_STRATEGY_NONE,
                prompt=job.prompt,
            ),
            images=job.missing(),
            attempt=job.attempts,
        )

    async def RenewLeases(
        self, request: pb.RenewLeasesRequest, context: Any
    ) -> pb.RenewLeasesResponse:
        self.faults.before("RenewLeases")
        self.presence = request
        self.fresh.append(request.fresh)
        self.faults.after("RenewLeases")
        lost = []
        for held in request.leases:
            job = self.jobs[held.job_id]
            if job.fence != held.fence or job.state != "RUNNING":
                lost.append(held.job_id)
        lease_ms = round(self.lease_seconds * 1000)
        return pb.RenewLeasesResponse(lost_job_ids=lost, lease_ms=lease_ms)

    async def WatchWorker(
        self, request: pb.WatchWorkerRequest, context: Any
    ) -> AsyncIterator[pb.WatchWorkerResponse]:
        self.faults.before("WatchWorker")
        queue: asyncio.Queue[pb.WatchWorkerResponse | None] = asyncio.Queue()
        self.watchers.append(queue)
        try:
            yield pb.WatchWorkerResponse(heartbeat=pb.WatchWorkerResponse.Heartbeat())
            while (word := await queue.get()) is not None:
                yield word
        finally:
            self.watchers.remove(queue)

    async def AcquireCalls(
        self, request: pb.AcquireCallsRequest, context: Any
    ) -> pb.AcquireCallsResponse:
        self.faults.before("AcquireCalls")
        self._held(request.job_id, request.fence)
        self.asks.append(request)
        self.faults.after("AcquireCalls")
        if self.leave is None:
            return pb.AcquireCallsResponse(granted=request.calls)
        return self.leave(request)

    async def ReportCalls(
        self, request: pb.ReportCallsRequest, context: Any
    ) -> pb.ReportCallsResponse:
        self.faults.before("ReportCalls")
        self.reports.append(request)
        return pb.ReportCallsResponse()

    async def RecordPrompt(
        self, request: pb.RecordPromptRequest, context: Any
    ) -> pb.RecordPromptResponse:
        self.faults.before("RecordPrompt")
        job = self._held(request.job_id, request.fence)
        if job.enhanced is None:
            job.enhanced, job.enhance_ms = request.enhanced, request.enhance_ms
        self.faults.after("RecordPrompt")
        return pb.RecordPromptResponse(images=job.missing())

    async def RecordImage(
        self, request: pb.RecordImageRequest, context: Any
    ) -> pb.RecordImageResponse:
        self.faults.before("RecordImage")
        job = self._held(request.job_id, request.fence)
        if request.index not in job.images:
            job.images[request.index] = "DONE"
            job.files[request.index] = request.file_id
            job.models[request.index] = request.model
            job.usages[request.index] = request.usage
        self.faults.after("RecordImage")
        file_id = job.files.get(request.index, 0)
        return pb.RecordImageResponse(image=job_pb2.Image(index=request.index, file_id=file_id))

    async def RecordImageFailure(
        self, request: pb.RecordImageFailureRequest, context: Any
    ) -> pb.RecordImageFailureResponse:
        self.faults.before("RecordImageFailure")
        job = self._held(request.job_id, request.fence)
        if request.index not in job.images:
            job.images[request.index] = "FAILED"
            job.errors[request.index] = (request.outcome, request.message)
        self.faults.after("RecordImageFailure")
        return pb.RecordImageFailureResponse(image=job_pb2.Image(index=request.index))

    async def FinishJob(self, request: pb.FinishJobRequest, context: Any) -> pb.FinishJobResponse:
        self.faults.before("FinishJob")
        job = self.jobs[request.job_id]
        if not (job.fence == request.fence and job.state in {"SUCCEEDED", "FAILED"}):
            job = self._held(request.job_id, request.fence)
            if len(job.images) < job.count:
                raise FailedPreconditionError("pending", reason="IMAGES_PENDING")
            failed = "FAILED" in job.images.values()
            job.state = "FAILED" if failed else "SUCCEEDED"
        self.faults.after("FinishJob")
        return pb.FinishJobResponse(state=job_pb2.JobState.Value(f"JOB_STATE_{job.state}"))

    async def ReleaseJob(
        self, request: pb.ReleaseJobRequest, context: Any
    ) -> pb.ReleaseJobResponse:
        self.faults.before("ReleaseJob")
        job = self._held(request.job_id, request.fence)
        job.state = "QUEUED"
        job.releases.append(request)
        self.faults.after("ReleaseJob")
        return pb.ReleaseJobResponse(state=job_pb2.JOB_STATE_QUEUED)

    async def GetJobOutputs(
        self, request: pb.GetJobOutputsRequest, context: Any
    ) -> pb.GetJobOutputsResponse:
        raise UnimplementedError("not for workers")

    async def GetBatchOutputs(
        self, request: pb.GetBatchOutputsRequest, context: Any
    ) -> pb.GetBatchOutputsResponse:
        raise UnimplementedError("not for workers")

    async def RecordArchive(
        self, request: pb.RecordArchiveRequest, context: Any
    ) -> pb.RecordArchiveResponse:
        raise UnimplementedError("not for workers")


class FakeAssets(backend_pb2_grpc.AssetsBackendServiceServicer):
    """Refuses images that begin with `BAD`; keeps what it stores in `stored`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.faults = Faults()
        self.inputs: dict[int, bytes] = {}
        self.resolved: list[list[int]] = []
        self.stored: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.headers: list[backend_pb2.StoreGeneratedHeader] = []
        self.chunks: list[int] = []
        self.ended: set[int] = set()
        self.server = server_for(
            "assets",
            "contentshop.assets.v1.AssetsBackendService",
            lambda s: backend_pb2_grpc.add_AssetsBackendServiceServicer_to_server(self, s),
        )

    def put_input(self, file_id: int, data: bytes) -> None:
        self.inputs[file_id] = data
        path = self.root / "uploads" / str(file_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    async def ResolveImages(
        self, request: backend_pb2.ResolveImagesRequest, context: Any
    ) -> backend_pb2.ResolveImagesResponse:
        self.faults.before("ResolveImages")
        assert request.team == TEAM
        ids = [ref.file_id for ref in request.refs]
        self.resolved.append(ids)
        bad = [
            FieldViolation(f"refs[{place}]", "not found", "IMAGE_NOT_FOUND")
            for place, file_id in enumerate(ids)
            if file_id not in self.inputs
        ]
        if bad:
            raise InvalidArgumentError("bad", reason="BAD_IMAGE_REFERENCE", violations=bad)
        return backend_pb2.ResolveImagesResponse(images=[self._input(one) for one in ids])

    def _input(self, file_id: int) -> backend_pb2.ResolvedImage:
        data = self.inputs[file_id]
        return backend_pb2.ResolvedImage(
            file_id=file_id,
            blob_url=f"{self.root.as_uri()}/uploads/{file_id}",
            content_type="image/png",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    async def StoreGenerated(
        self, request_iterator: AsyncIterator[backend_pb2.StoreGeneratedRequest], context: Any
    ) -> backend_pb2.StoreGeneratedResponse:
        self.faults.before("StoreGenerated")
        first = await anext(aiter(request_iterator))
        header = first.header
        self.headers.append(header)
        if header.job_id in self.ended:
            raise FailedPreconditionError("over", reason="JOB_ENDED")
        if hold := self.faults.held.get("StoreGenerated"):
            await hold.wait()
        parts = [part.chunk async for part in request_iterator]
        data = b"".join(parts)
        self.chunks.append(len(parts))
        assert header.team == TEAM
        if header.size_bytes != len(data):  # a client that dies looks like an end of the stream
            raise InvalidArgumentError("cut short", reason="SIZE_MISMATCH")
        assert header.sha256 == hashlib.sha256(data).hexdigest()
        if data.startswith(b"BAD"):
            raise InvalidArgumentError("no image", reason="NOT_AN_IMAGE")
        key = (header.job_id, header.image_index)
        already = key in self.stored
        if not already:
            self.stored[key] = (1000 + len(self.stored), data)
        self.faults.after("StoreGenerated")
        file_id, kept = self.stored[key]
        image = backend_pb2.ResolvedImage(
            file_id=file_id,
            content_type="image/png",
            size_bytes=len(kept),
            width=3,
            height=4,
            sha256=hashlib.sha256(kept).hexdigest(),
        )
        return backend_pb2.StoreGeneratedResponse(image=image, already_stored=already)

    async def BeginArchive(
        self, request: backend_pb2.BeginArchiveRequest, context: Any
    ) -> backend_pb2.BeginArchiveResponse:
        raise UnimplementedError("not for workers")

    async def StoreArchive(
        self, request: backend_pb2.StoreArchiveRequest, context: Any
    ) -> backend_pb2.StoreArchiveResponse:
        raise UnimplementedError("not for workers")

    async def ListUnheardEndings(
        self, request: backend_pb2.ListUnheardEndingsRequest, context: Any
    ) -> backend_pb2.ListUnheardEndingsResponse:
        raise UnimplementedError("not for workers")

    async def ListFolderImages(
        self, request: backend_pb2.ListFolderImagesRequest, context: Any
    ) -> backend_pb2.ListFolderImagesResponse:
        raise UnimplementedError("not for workers")

    async def ResolveArchive(
        self, request: backend_pb2.ResolveArchiveRequest, context: Any
    ) -> backend_pb2.ResolveArchiveResponse:
        raise UnimplementedError("not for workers")


Script = Callable[[ImageRequest, int], Any]
"""(request, which call for this image, from 1) → bytes, an exception, or an awaitable of bytes."""


class ScriptedGenerator:
    """Does what its script says, and counts."""

    def __init__(self, script: Script | None = None) -> None:
        self.script: Script = script or (lambda request, _: b"image %d" % request.index)
        self.requests: list[ImageRequest] = []
        self.running = 0
        self.most_running = 0
        self.cancelled = 0
        self.closed = False
        self.model = ""  # of a name, its calls are governed
        self.words: str | Exception | Callable[[], Awaitable[str]] = "softly lit"
        self.words_model = ""  # likewise
        self.asked_words: list[str] = []

    @property
    def name(self) -> str:
        return "scripted"

    def model_for(self, quality: str) -> str:
        return self.model

    @property
    def prompt_model(self) -> str:
        return self.words_model

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        self.requests.append(request)
        tries = sum((r.job_id, r.index) == (request.job_id, request.index) for r in self.requests)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            result = self.script(request, tries)
            if asyncio.iscoroutine(result):
                result = await result
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if isinstance(result, Exception):
            raise result
        return GeneratedImage(result, "image/png", "model-1", Usage(1, 2, 3))

    async def enhance(self, prompt: str) -> Words:
        self.asked_words.append(prompt)
        words = self.words
        if isinstance(words, Exception):
            raise words
        text = words if isinstance(words, str) else await words()
        return Words(text, "words-1", Usage(10, 20, 30))

    async def close(self) -> None:
        self.closed = True
