"""A worker in a house of fakes: everything it talks to is over real gRPC, or the memory broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from contentshop.enqueue.v1 import messages_pb2
from contentshop.worker.v1 import worker_pb2, worker_pb2_grpc
from libs.common.auth import mint_user_token
from libs.common.broker import Message, lane_queue
from libs.common.broker_memory import MemoryBroker
from libs.common.ids import SystemIds
from services.worker.app import WorkerApp, build
from services.worker.settings import Settings
from tests.fakes.clock import SkippingClock
from tests.fakes.worker_world import (
    LEASE_SECONDS,
    SECRET,
    FakeAssets,
    FakeEnqueue,
    FakeJob,
    Script,
    ScriptedGenerator,
)
from tests.support.eventually import eventually

LANE = "image_generation.fast"


def doorbell(job_id: int) -> bytes:
    bell = messages_pb2.Doorbell(schema_version=1, job_id=job_id, dispatch_no=1)
    return bell.SerializeToString()


class HastyIds(SystemIds):
    """Waits that are a twentieth of the real ones."""

    def uniform(self, low: float, high: float) -> float:
        return super().uniform(low, high) / 20


class House:
    """The worker and all around it; started and stopped by the fixture `house`."""

    def __init__(self, tmp_path: Path) -> None:
        self.enqueue = FakeEnqueue()
        self.assets = FakeAssets(tmp_path / "blobs")
        self.generator = ScriptedGenerator()
        self.blob_root = self.assets.root
        self.clock = SkippingClock()
        self.ids = HastyIds()
        self.broker = MemoryBroker(clock=self.clock, ids=self.ids)
        self.apps: list[WorkerApp] = []
        self._channels: list[grpc.aio.Channel] = []

    async def start(self) -> None:
        await self.enqueue.server.start()
        await self.assets.server.start()
        await self.broker.start()

    async def stop(self) -> None:
        for channel in self._channels:
            await channel.close()
        for app in self.apps:
            await app.stop()
        await self.broker.close()
        await self.assets.server.stop()
        await self.enqueue.server.stop()

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "auth_secret": SECRET,
            "service_secret": SECRET,
            "listen": "127.0.0.1:0",
            "enqueue_target": f"127.0.0.1:{self.enqueue.server.port}",
            "assets_target": f"127.0.0.1:{self.assets.server.port}",
            "blob_url": self.blob_root.as_uri(),
            "renew_seconds": 0.2,
            "drain_seconds": 0.3,
            "patience_seconds": 20.0,
            "probe_seconds": 0.2,
            "name": "worker-1",
        }
        return Settings(**{**values, **changes})

    async def worker(self, script: Script | None = None, **changes: Any) -> WorkerApp:
        if script is not None:
            self.generator.script = script
        app = build(
            self.settings(**changes),
            clock=self.clock,
            ids=self.ids,
            broker=self.broker,
            generator=self.generator,
        )
        self.apps.append(app)
        await app.start()
        return app

    def job(self, job_id: int, count: int = 1, **facts: Any) -> FakeJob:
        job = FakeJob(job_id, count, **facts)
        self.enqueue.jobs[job_id] = job
        return job

    async def ring(self, *job_ids: int, lane: str = LANE) -> None:
        await self.publish(*(doorbell(job_id) for job_id in job_ids), lane=lane)

    async def publish(self, *bodies: bytes, lane: str = LANE) -> None:
        await self.broker.publish([Message(lane_queue(lane), body) for body in bodies])

    async def run(self, job_id: int, count: int = 1, **facts: Any) -> FakeJob:
        """A job, rung and waited for until it is no worker's."""
        job = self.job(job_id, count, **facts)
        await self.ring(job_id)
        await self.until_state(job, "SUCCEEDED", "FAILED", "CANCELED")
        return job

    async def until_state(self, job: FakeJob, *states: str) -> None:
        what = f"job {job.job_id} in {states}"
        await eventually(lambda: job.state in states, timeout_seconds=30, what=what)

    async def renewals(self, count: int) -> None:
        """Waits for so many more: one of them may have been under way, or come to nothing."""
        renewed = self.enqueue.faults.calls
        enough = renewed["RenewLeases"] + count
        await eventually(lambda: renewed["RenewLeases"] >= enough)

    async def outlive_the_claims(self) -> None:
        """Lets the leases run out that claims gave, and only renewals have made longer since."""
        self.enqueue.lease_seconds = 10 * LEASE_SECONDS
        await self.renewals(5)
        self.clock.skip(2 * LEASE_SECONDS)

    def door(self, app: WorkerApp) -> worker_pb2_grpc.WorkerServiceStub:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{app.port}")
        self._channels.append(channel)
        return worker_pb2_grpc.WorkerServiceStub(channel)

    def ops(self) -> tuple[tuple[str, str], ...]:
        token = mint_user_token(
            secret=SECRET, issuer="contentshop", team="", scopes=["ops"], clock=self.clock
        )
        return (("authorization", f"Bearer {token}"),)

    async def look(self, app: WorkerApp) -> worker_pb2.Worker:
        request = worker_pb2.GetWorkerRequest()
        answer = await self.door(app).GetWorker(request, metadata=self.ops())
        return answer.worker
