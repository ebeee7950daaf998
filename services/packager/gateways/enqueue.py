"""enqueue, by gRPC."""

from __future__ import annotations

from collections.abc import Iterable

from contentshop.enqueue.v1 import execution_pb2, execution_pb2_grpc, job_pb2
from libs.common.errors import FailedPreconditionError
from libs.common.grpc_client import RpcClient
from services.packager.domain import (
    Archive,
    ArchiveImage,
    ArchiveState,
    EndedBatch,
    EndedJob,
    Section,
)

CALL_SECONDS = 5.0

_ENDED = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELED)


class EnqueueGateway:
    """What the packager asks of enqueue and tells it; errors are typed."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._stub = execution_pb2_grpc.ExecutionServiceStub(client.channel)

    async def job(self, team: str, job_id: int) -> EndedJob:
        """A job that is over; NotFoundError, FailedPreconditionError ARCHIVE_NOT_READY."""
        answer: execution_pb2.GetJobOutputsResponse = await self._client.unary(
            self._stub.GetJobOutputs,
            execution_pb2.GetJobOutputsRequest(team=team, job_id=job_id),
            timeout_seconds=CALL_SECONDS,
        )
        if answer.state not in _ENDED:
            raise FailedPreconditionError("the job has not ended", reason="ARCHIVE_NOT_READY")
        images = _images(answer.outputs)
        return EndedJob(team, job_id, images, answer.finish_time_ms, answer.hidden)

    async def batch(self, team: str, batch_id: int) -> EndedBatch:
        """A batch that is over; NotFoundError, FailedPreconditionError ARCHIVE_NOT_READY."""
        answer: execution_pb2.GetBatchOutputsResponse = await self._client.unary(
            self._stub.GetBatchOutputs,
            execution_pb2.GetBatchOutputsRequest(team=team, batch_id=batch_id),
            timeout_seconds=CALL_SECONDS,
        )
        if not answer.ended:
            raise FailedPreconditionError("a job of it has not ended", reason="ARCHIVE_NOT_READY")
        sections = tuple(
            Section(_images(part.outputs), part.variant_index, part.variant)
            for part in answer.variants
        )
        return EndedBatch(team, batch_id, answer.name, sections, answer.finish_time_ms)

    async def record(self, archive: Archive) -> None:
        """Records a READY or FAILED archive of a job on that job."""
        request = execution_pb2.RecordArchiveRequest(team=archive.team, job_id=archive.source.id)
        if archive.state is ArchiveState.READY:
            request.state = job_pb2.ARCHIVE_STATE_READY
            request.file_id = archive.file_id
            request.filename = archive.filename
            request.size_bytes = archive.size_bytes
        else:
            assert archive.fault is not None  # FAILED says why
            request.state = job_pb2.ARCHIVE_STATE_FAILED
            request.error.reason = archive.fault.reason
            request.error.message = archive.fault.message
        await self._client.unary(self._stub.RecordArchive, request, timeout_seconds=CALL_SECONDS)


def _images(outputs: Iterable[execution_pb2.JobOutput]) -> tuple[ArchiveImage, ...]:
    return tuple(ArchiveImage(output.index, output.file_id) for output in outputs)
