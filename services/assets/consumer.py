"""The broker's door: what enqueue says of jobs, on the queue `assets.jobs`."""

from __future__ import annotations

import structlog
from google.protobuf.message import DecodeError

from contentshop.enqueue.v1 import job_pb2, messages_pb2
from libs.common.auth import TEAM_PATTERN
from libs.common.broker import Broker, Delivery, Subscription
from libs.common.broker_handling import Patience
from libs.common.clock import Clock
from libs.common.ids import Ids
from services.assets.domain import Filing, Review, ReviewState
from services.assets.store.files import Recorded
from services.assets.usecases.deps import Deps
from services.assets.usecases.jobs import (
    JobEnd,
    JobInputs,
    KeepInputs,
    LivingJob,
    end_job,
    reopen_job,
)

log = structlog.get_logger()

Message = messages_pb2.JobEnqueued | messages_pb2.JobEnded
QUEUE = "assets.jobs"
SCHEMA_VERSION = 1
PREFETCH = 16


class JobMessages:
    """Takes in job.enqueued and job.ended, each until its change is committed.

    Args:
        deps: what the use cases need.
        broker: where from.
        clock: for waits.
        ids: for jitter.
    """

    def __init__(self, deps: Deps, broker: Broker, clock: Clock, ids: Ids) -> None:
        self._deps = deps
        self._broker = broker
        self._patience = Patience(clock, ids)
        self._keep_inputs = KeepInputs(deps)
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Subscribes; the broker may come later."""
        self._subscription = await self._broker.consume(QUEUE, self._take, prefetch=PREFETCH)

    async def stop(self) -> None:
        """Ends the subscription; what is in hand comes again."""
        if self._subscription is not None:
            await self._subscription.close()
        await self._keep_inputs.commits.stop()

    async def _take(self, delivery: Delivery) -> None:
        message = _read(delivery.body)
        if message is None:
            log.warning("message.rejected", queue=QUEUE, bytes=len(delivery.body))
            await delivery.reject()
            return
        await self._patience(lambda: self._apply(message), job_id=message.job_id)
        await delivery.ack()

    async def _apply(self, message: Message) -> None:
        team, job_id, pin_token = message.team, message.job_id, message.pin_token
        if isinstance(message, messages_pb2.JobEnded):
            await end_job(self._deps, JobInputs(team, job_id, pin_token), _end(message))
        elif message.lives_again:
            inputs = tuple(message.input_file_ids)
            await reopen_job(self._deps, LivingJob(team, job_id, pin_token, inputs))
        else:
            await self._keep_inputs(JobInputs(team, job_id, pin_token))


def _read(body: bytes) -> Message | None:
    """The message, or None for what this version does not know.

    A delivery does not say its routing key, and need not: job.enqueued is the beginning of
    job.ended, and lacks the state that every end has.
    """
    message = messages_pb2.JobEnded()
    try:
        message.ParseFromString(body)
    except DecodeError:
        return None
    known = (
        message.schema_version == SCHEMA_VERSION
        and message.job_id > 0
        and TEAM_PATTERN.fullmatch(message.team) is not None
        and message.state in _KNOWN_STATES
    )
    if not known:
        return None
    if message.state != job_pb2.JOB_STATE_UNSPECIFIED:
        return message
    return messages_pb2.JobEnqueued.FromString(body)


def _end(message: messages_pb2.JobEnded) -> JobEnd:
    return JobEnd(
        recorded=Recorded(
            file_ids=[output.file_id for output in message.outputs],
            source_task_id=message.source_task_id,
            variant=message.variant,
            batch_id=message.batch_id,
        ),
        filing=Filing(
            folder_id=message.folder_id,
            batch_id=message.batch_id,
            batch_name=message.batch_name,
            variant_index=message.variant_index,
            variant=message.variant,
        ),
        review=Review(_REVIEWS.get(message.review_state), message.review_time_us),
    )


_REVIEWS = {
    job_pb2.REVIEW_STATE_APPROVED: ReviewState.APPROVED,
    job_pb2.REVIEW_STATE_REJECTED: ReviewState.REJECTED,
}


_KNOWN_STATES = frozenset(
    {
        job_pb2.JOB_STATE_UNSPECIFIED,
        job_pb2.JOB_STATE_SUCCEEDED,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_CANCELED,
    }
)
