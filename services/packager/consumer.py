"""The broker's door: a job has ended. The message is acked once a row says what it asks for."""

from __future__ import annotations

import structlog
from google.protobuf.message import DecodeError

from contentshop.enqueue.v1 import messages_pb2
from libs.common.auth import TEAM_PATTERN
from libs.common.broker import Broker, Delivery, Subscription
from services.packager.domain import MIN_IMAGES, EndedJob, JobImage, in_order
from services.packager.usecases.deps import Deps
from services.packager.usecases.requesting import want_archive

log = structlog.get_logger()

QUEUE = "packager.jobs"
SCHEMA_VERSION = 1
PREFETCH = 16


class Consumer:
    """Takes `job.ended`."""

    def __init__(self, deps: Deps, broker: Broker) -> None:
        self._deps = deps
        self._broker = broker
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
        if ended.archive_wanted:
            job = _wanted(ended)
            if job is None:
                log.warning("job_ended.refused", queue=delivery.queue, job_id=ended.job_id)
                await delivery.reject()
                return
            await want_archive(self._deps, job)
            self._deps.crash.here("P4")
        await delivery.ack()


def _decode(body: bytes) -> messages_pb2.JobEnded | None:
    """The message, or None where it is none that this version knows."""
    ended = messages_pb2.JobEnded()
    try:
        ended.ParseFromString(body)
    except DecodeError:
        return None
    return ended if ended.schema_version == SCHEMA_VERSION else None


def _wanted(ended: messages_pb2.JobEnded) -> EndedJob | None:
    """The job to zip, or None where the message makes no sense."""
    images = tuple(JobImage(output.index, output.file_id) for output in ended.outputs)
    sound = (
        ended.job_id >= 1
        and ended.finish_time_ms >= 1
        and TEAM_PATTERN.fullmatch(ended.team) is not None
        and len(images) >= MIN_IMAGES
        and in_order(images)
    )
    return EndedJob(ended.team, ended.job_id, images, ended.finish_time_ms) if sound else None
