# ruff: noqa: N802, ARG002 - the names and arguments are gRPC's
"""The worker's gRPC door: a look at it, and the way to send it home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from contentshop.worker.v1 import worker_pb2 as pb
from contentshop.worker.v1 import worker_pb2_grpc
from libs.common.auth import current_caller
from libs.common.clock import Clock
from services.worker.circuit import GeneratorCircuit
from services.worker.consumer import Consumer
from services.worker.inhand import Counters, JobsInHand

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What does not change while a worker lives."""

    name: str
    lanes: tuple[str, ...]
    generator: str
    started_at: float


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """WorkerService, for ops."""

    def __init__(
        self,
        *,
        facts: WorkerFacts,
        consumer: Consumer,
        hand: JobsInHand,
        circuit: GeneratorCircuit,
        counters: Counters,
        clock: Clock,
    ) -> None:
        self._facts = facts
        self._consumer = consumer
        self._hand = hand
        self._circuit = circuit
        self._counters = counters
        self._clock = clock

    async def GetWorker(self, request: pb.GetWorkerRequest, context: Any) -> pb.GetWorkerResponse:
        """What the worker is doing."""
        return pb.GetWorkerResponse(worker=self._worker())

    async def DrainWorker(
        self,
        request: pb.DrainWorkerRequest,
        context: Any,
    ) -> pb.DrainWorkerResponse:
        """Takes no further jobs; what runs is finished."""
        log.info("worker.drain_asked", worker=self._facts.name, actor=current_caller().subject)
        await self._consumer.drain()
        return pb.DrainWorkerResponse(worker=self._worker())

    async def ResumeWorker(
        self,
        request: pb.ResumeWorkerRequest,
        context: Any,
    ) -> pb.ResumeWorkerResponse:
        """Takes jobs again."""
        log.info("worker.resume_asked", worker=self._facts.name, actor=current_caller().subject)
        await self._consumer.resume()
        return pb.ResumeWorkerResponse(worker=self._worker())

    def _worker(self) -> pb.Worker:
        now = self._clock.monotonic()
        jobs = sorted(self._hand.jobs.items())
        return pb.Worker(
            name=self._facts.name,
            lanes=self._facts.lanes,
            slots=self._hand.slots,
            running=[
                pb.RunningJob(
                    job_id=job_id,
                    attempt=job.claim.attempt,
                    images_in_flight=job.calls,
                    running_seconds=now - job.started_at,
                )
                for job_id, job in jobs
            ],
            draining=self._consumer.draining,
            generator=self._facts.generator,
            generator_healthy=self._circuit.healthy,
            generator_calls=self._counters.calls,
            generator_failures=self._counters.failures,
            wasted_generations=self._counters.wasted,
            extra_images=self._counters.extra,
            uptime_seconds=now - self._facts.started_at,
        )
