"""The broker's door: a job has ended. The message is acked once a row says what it asks for."""

from __future__ import annotations

import structlog
from google.protobuf.message import DecodeError

from contentshop.enqueue.v1 import job_pb2, messages_pb2
from libs.common.auth import TEAM_PATTERN
from libs.common.broker import Broker, Delivery, Subscription
from libs.common.broker_handling import Patience
from services.packager.domain import MIN_JOB_IMAGES, ArchiveImage, EndedJob, in_order
from services.packager.usecases.deps import Deps
from services.packager.usecases.endings import (
    JobOutputs,
    hide_archives,
    show_archive,
    want_archive,
)

log = structlog.get_logger()

QUEUE = "packager.jobs"
SCHEMA_VERSION = 1
PREFETCH = 16
# Where a service reviews images before they are shown; others say APPROVED, older ones nothing.
_HIDDEN = (job_pb2.REVIEW_STATE_PENDING, job_pb2.REVIEW_STATE_REJECTED)


class Consumer:
    """Takes `job.ended`."""

    def __init__(self, deps: Deps, jobs: JobOutputs, broker: Broker) -> None:
        self._deps = deps
        self._jobs = jobs
        self._broker = broker
        self._patience = Patience(deps.clock, deps.ids)
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Begins to consume."""
        self._subscription = await self._broker.consume(QUEUE, self._take, prefetch=PREFETCH)

    async def stop(self) -> None:
        """Ends; what is not acked comes again."""
        if self._subscription is not None:
            await self._subscription.close()

    async def _take(self, delivery: Delivery) -> None:
        self._deps.crash.here("P1")
        ended = _decode(delivery.body)
        if ended is None:
            log.warning("job_ended.refused", queue=delivery.queue)
            await delivery.reject()
            return
        job = _job(ended)
        if job is None:
            log.warning("job_ended.refused", queue=delivery.queue, job_id=ended.job_id)
            await delivery.reject()
            return
        await self._patience(lambda: self._follow(ended, job), job_id=job.job_id)
        await delivery.ack()

    async def _follow(self, ended: messages_pb2.JobEnded, job: EndedJob) -> None:
        if job.hidden:
            await hide_archives(self._deps, self._jobs, job, ended.batch_id)
            return
        if ended.archive_wanted:
            await want_archive(self._deps, job)
            self._deps.crash.here("P4")
        if len(job.images) >= MIN_JOB_IMAGES:
            await show_archive(self._deps, self._jobs, job)


def _decode(body: bytes) -> messages_pb2.JobEnded | None:
    """The message, or None where it is none that this version knows."""
    ended = messages_pb2.JobEnded()
    try:
        ended.ParseFromString(body)
    except DecodeError:
        return None
    return ended if ended.schema_version == SCHEMA_VERSION else None


def _job(ended: messages_pb2.JobEnded) -> EndedJob | None:
    """The job that ended, or None where the message makes no sense."""
    images = tuple(ArchiveImage(output.index, output.file_id) for output in ended.outputs)
    sound = (
        ended.job_id >= 1
        and ended.finish_time_ms >= 1
        and TEAM_PATTERN.fullmatch(ended.team) is not None
        and (len(images) >= MIN_JOB_IMAGES or not ended.archive_wanted)
        and in_order(images)
        and ended.batch_id >= 0
    )
    hidden = ended.review_state in _HIDDEN
    return (
        EndedJob(ended.team, ended.job_id, images, ended.finish_time_ms, hidden) if sound else None
    )
