"""What enqueue calls, and how it words its messages: assets by gRPC, the broker by protobuf."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from google.protobuf.message import Message as Proto

from contentshop.assets.v1 import backend_pb2, backend_pb2_grpc
from contentshop.enqueue.v1 import execution_pb2, job_pb2, messages_pb2
from libs.common.broker import JOB_ENDED, JOB_ENQUEUED, Message, lane_queue
from libs.common.errors import PermissionDeniedError, UnauthenticatedError, UnavailableError
from libs.common.grpc_client import RpcClient
from services.enqueue.domain import ArchiveState, DraftRef, Job

log = structlog.get_logger()

RESOLVE_SECONDS = 5.0
SCHEMA_VERSION = 1


class AssetsGateway:
    """assets, as the enqueueing use case needs it."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._stub = backend_pb2_grpc.AssetsBackendServiceStub(client.channel)

    async def resolve(self, team: str, refs: Sequence[DraftRef], pin_token: str) -> list[int]:
        """The file ids in order, pinned; typed errors as assets gives them."""
        request = backend_pb2.ResolveImagesRequest(
            team=team,
            pin_token=pin_token,
            refs=[
                backend_pb2.ImageRef(file_id=ref.file_id)
                if ref.file_id
                else backend_pb2.ImageRef(upload_url=ref.upload_url)
                for ref in refs
            ],
        )
        try:
            answer = await self._client.unary(
                self._stub.ResolveImages, request, timeout_seconds=RESOLVE_SECONDS
            )
        except (UnauthenticatedError, PermissionDeniedError) as error:
            # Our own token was refused: the caller's is none the worse, and cannot mend it.
            log.error("assets.refused_us", reason=error.reason)  # noqa: TRY400 - no trace needed
            raise UnavailableError("assets is not available", reason="ASSETS_REFUSED") from None
        return [image.file_id for image in answer.images]


class ProtoAnnouncer:
    """Messages about jobs, as protobuf.

    Args:
        review_required: readers hide images until somebody approved them.
    """

    def __init__(self, *, review_required: bool = False) -> None:
        self._review_required = review_required

    def doorbell(self, job: Job) -> Message:
        """Rings for an admitted job, on its lane."""
        bell = messages_pb2.Doorbell(
            schema_version=SCHEMA_VERSION, job_id=job.id, dispatch_no=job.dispatch_no
        )
        return _message(lane_queue(job.spec.lane), bell)

    def enqueued(self, job_id: int, team: str, pin_token: str) -> Message:
        """The pins of the job's inputs are to last."""
        enqueued = messages_pb2.JobEnqueued(
            schema_version=SCHEMA_VERSION, job_id=job_id, team=team, pin_token=pin_token
        )
        return _message(JOB_ENQUEUED, enqueued)

    def ended(self, job: Job) -> Message:
        """The job is over."""
        assert job.finished_at is not None  # it has ended
        ended = messages_pb2.JobEnded(
            schema_version=SCHEMA_VERSION,
            job_id=job.id,
            team=job.spec.team,
            pin_token=job.spec.pin_token,
            state=job_pb2.JobState.Value(f"JOB_STATE_{job.state}"),
            outputs=[
                execution_pb2.JobOutput(index=image.index, file_id=image.made.file_id)
                for image in job.images
                if image.made is not None
            ],
            number_of_variations=job.spec.count,
            finish_time_ms=int(job.finished_at.timestamp() * 1000),
            archive_wanted=job.archive.state is ArchiveState.PENDING,
            source_task_id=job.spec.labels.source_task_id,
            review_state=self._review_state(job),
        )
        return _message(JOB_ENDED, ended)

    def _review_state(self, job: Job) -> job_pb2.ReviewState.ValueType:
        if not self._review_required:
            return job_pb2.REVIEW_STATE_APPROVED
        return job_pb2.ReviewState.Value(f"REVIEW_STATE_{job.review.state}")


def _message(routing_key: str, body: Proto) -> Message:
    return Message(routing_key, body.SerializeToString())
