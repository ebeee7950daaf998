"""A real gRPC server with the part of enqueue that the packager needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from contentshop.enqueue.v1 import execution_pb2 as pb
from contentshop.enqueue.v1 import execution_pb2_grpc, job_pb2
from libs.common.auth import Authenticator, SharedSecret
from libs.common.clock import SystemClock
from libs.common.errors import ContentshopError, InvalidArgumentError, NotFoundError
from libs.common.grpc_server import GrpcServer


class FakeExecution(execution_pb2_grpc.ExecutionServiceServicer):
    """GetJobOutputs, GetBatchOutputs and RecordArchive.

    Attributes:
        jobs: (team, job id) → what GetJobOutputs answers.
        batches: (team, batch id) → what GetBatchOutputs answers.
        reports: every RecordArchive that arrived, in order.
        errors: raised by the next RecordArchives, in order, before they count as arrived.
        asked: GetJobOutputs calls.
        after_outputs: called once after the next answer of GetBatchOutputs is decided.
        answers: while it is not set, RecordArchive is heard and not answered.
    """

    def __init__(self, service_secret: str) -> None:
        self.jobs: dict[tuple[str, int], pb.GetJobOutputsResponse] = {}
        self.batches: dict[tuple[str, int], pb.GetBatchOutputsResponse] = {}
        self.reports: list[pb.RecordArchiveRequest] = []
        self.errors: list[ContentshopError] = []
        self.asked = 0
        self.after_outputs: Callable[[], Awaitable[None]] | None = None
        self.answers = asyncio.Event()
        self.answers.set()

        def register(server: grpc.aio.Server) -> None:
            execution_pb2_grpc.add_ExecutionServiceServicer_to_server(self, server)

        self.server = GrpcServer(
            services=["contentshop.enqueue.v1.ExecutionService"],
            register=register,
            authenticator=Authenticator(
                service="enqueue",
                user_keys=SharedSecret("unused"),
                user_issuer="contentshop",
                service_secret=service_secret,
                clock=SystemClock(),
            ),
            address="127.0.0.1:0",
            grace_seconds=0.0,
        )

    def add_job(
        self,
        team: str,
        job_id: int,
        file_ids: Sequence[int],
        state: job_pb2.JobState.ValueType = job_pb2.JOB_STATE_SUCCEEDED,
        finish_time_ms: int = 1_700_000_000_123,
    ) -> None:
        """A job with these images, from index 1 up."""
        self.jobs[team, job_id] = pb.GetJobOutputsResponse(
            state=state,
            outputs=[
                pb.JobOutput(index=index, file_id=file_id)
                for index, file_id in enumerate(file_ids, start=1)
            ],
            number_of_variations=max(1, len(file_ids)),
            finish_time_ms=finish_time_ms,
        )

    async def GetJobOutputs(  # noqa: N802
        self,
        request: pb.GetJobOutputsRequest,
        context: Any,  # noqa: ARG002
    ) -> pb.GetJobOutputsResponse:
        self.asked += 1
        job = self.jobs.get((request.team, request.job_id))
        if job is None:
            raise NotFoundError("job")
        return job

    async def GetBatchOutputs(  # noqa: N802
        self,
        request: pb.GetBatchOutputsRequest,
        context: Any,  # noqa: ARG002
    ) -> pb.GetBatchOutputsResponse:
        batch = self.batches.get((request.team, request.batch_id))
        if batch is None:
            raise NotFoundError("batch")
        said = pb.GetBatchOutputsResponse()
        said.CopyFrom(batch)
        meanwhile, self.after_outputs = self.after_outputs, None
        if meanwhile is not None:
            await meanwhile()
        return said

    async def RecordArchive(  # noqa: N802
        self,
        request: pb.RecordArchiveRequest,
        context: Any,  # noqa: ARG002
    ) -> pb.RecordArchiveResponse:
        if self.errors:
            raise self.errors.pop(0)
        job = self.jobs.get((request.team, request.job_id))
        if job is not None and job.state == job_pb2.JOB_STATE_CANCELED:
            raise InvalidArgumentError("a job in this state has no archive")
        self.reports.append(request)
        await self.answers.wait()
        return pb.RecordArchiveResponse()
