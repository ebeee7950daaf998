"""What enqueue calls, and how it words its messages: assets by gRPC, the broker by protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from google.protobuf.message import Message as Proto

from contentshop.assets.v1 import assets_pb2, backend_pb2, backend_pb2_grpc
from contentshop.enqueue.v1 import execution_pb2, job_pb2, messages_pb2
from libs.common.broker import JOB_ENDED, JOB_ENQUEUED, Message, lane_queue
from libs.common.errors import PermissionDeniedError, UnauthenticatedError, UnavailableError
from libs.common.grpc_client import RpcClient
from services.enqueue.domain import ArchiveState, Job, Moodboard
from services.enqueue.references import KeptMoodboard, Resolved, Wanted
from services.enqueue.store.confirming import Due

log = structlog.get_logger()

RESOLVE_SECONDS = 5.0
CONFIRM_SECONDS = 5.0
SCHEMA_VERSION = 1
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class AssetsGateway:
    """assets, as the enqueueing use case needs it."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._stub = backend_pb2_grpc.AssetsBackendServiceStub(client.channel)

    async def resolve(self, team: str, wanted: Wanted) -> Resolved:
        """The file ids in order, pinned, and the moodboard; typed errors as assets gives them."""
        request = backend_pb2.ResolveImagesRequest(
            team=team,
            refs=[
                backend_pb2.ImageRef(file_id=ref.file_id)
                if ref.file_id
                else backend_pb2.ImageRef(upload_url=ref.upload_url)
                for ref in wanted.refs
            ],
            moodboard_id=wanted.moodboard_id,
            folder_id=wanted.folder_id,
        )
        if len(wanted.pins) == 1:
            request.pin_token = wanted.pins[0].token  # it needs them all
        else:
            request.pins.extend(
                backend_pb2.JobPins(pin_token=pins.token, refs=pins.refs) for pins in wanted.pins
            )
        try:
            answer = await self._client.unary(
                self._stub.ResolveImages, request, timeout_seconds=RESOLVE_SECONDS
            )
        except (UnauthenticatedError, PermissionDeniedError) as error:
            # Our own token was refused: the caller's is none the worse, and cannot mend it.
            log.error("assets.refused_us", reason=error.reason)  # noqa: TRY400 - no trace needed
            raise UnavailableError("assets is not available", reason="ASSETS_REFUSED") from None
        return Resolved(
            tuple(image.file_id for image in answer.images),
            _kept(answer.moodboard) if answer.HasField("moodboard") else None,
        )

    async def unheard(self, team: str, ended: Sequence[Due]) -> list[int]:
        """Those of a team's ended jobs whose end, or whose review, assets has not heard."""
        request = backend_pb2.ListUnheardEndingsRequest(
            team=team,
            jobs=[
                backend_pb2.EndedJob(
                    job_id=one.job_id, review_time_us=_microseconds(one.reviewed_at)
                )
                for one in ended
            ],
        )
        answer = await self._client.unary(
            self._stub.ListUnheardEndings, request, timeout_seconds=CONFIRM_SECONDS
        )
        return list(answer.job_ids)


def _kept(content: assets_pb2.MoodboardContent) -> KeptMoodboard:
    return KeptMoodboard(
        Moodboard(
            tuple(content.positive_file_ids),
            tuple(content.negative_file_ids),
            content.style_appendix,
        ),
        model_file_id=content.model_file_id,
        background_file_id=content.background_file_id,
    )


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

    def lives_again(self, job: Job) -> Message:
        """After a restore: the job has not ended, whatever was said of it."""
        board = job.spec.moodboard or Moodboard()
        again = messages_pb2.JobEnqueued(
            schema_version=SCHEMA_VERSION,
            job_id=job.id,
            team=job.spec.team,
            pin_token=job.spec.pin_token,
            lives_again=True,
            input_file_ids={
                *(one.file_id for one in job.spec.inputs),
                *board.positive_file_ids,
                *board.negative_file_ids,
            },
        )
        return _message(JOB_ENQUEUED, again)

    def ended(self, job: Job, batch_name: str) -> Message:
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
            review_time_us=_microseconds(job.review.at),
            folder_id=job.spec.folder_id,
            batch_id=job.spec.batch_id,
            batch_name=batch_name,
            variant_index=job.spec.variant_index,
            variant=job.spec.labels.variant,
            product=job.spec.labels.product,
        )
        return _message(JOB_ENDED, ended)

    def _review_state(self, job: Job) -> job_pb2.ReviewState.ValueType:
        if not self._review_required:
            return job_pb2.REVIEW_STATE_APPROVED
        return job_pb2.ReviewState.Value(f"REVIEW_STATE_{job.review.state}")


def _microseconds(at: datetime | None) -> int:
    return 0 if at is None else (at - _EPOCH) // timedelta(microseconds=1)


def _message(routing_key: str, body: Proto) -> Message:
    return Message(routing_key, body.SerializeToString())
