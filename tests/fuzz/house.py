"""The four services in this process, over real gRPC, with a small generator: what is fuzzed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from contentshop.assets.v1 import assets_pb2, assets_pb2_grpc
from contentshop.enqueue.v1 import enqueue_pb2, enqueue_pb2_grpc, job_pb2, ops_pb2, ops_pb2_grpc
from contentshop.worker.v1 import worker_pb2, worker_pb2_grpc
from libs.common import env
from libs.common.auth import mint_user_token, service_tokens
from libs.common.broker import LANES
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.grpc_client import RpcClient, open_channel
from libs.common.ids import SystemIds
from libs.common.outcomes import Outcome
from libs.common.service_app import ServiceApp
from services.assets import app as assets_app
from services.assets.settings import Settings as AssetsSettings
from services.enqueue import app as enqueue_app
from services.enqueue.settings import Settings as EnqueueSettings
from services.packager import app as packager_app
from services.packager.settings import Settings as PackagerSettings
from services.worker import app as worker_app
from services.worker.generation import GeneratedImage, GenerationError, ImageRequest, Usage, Words
from services.worker.settings import Settings as WorkerSettings
from tests.fixtures import images
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually

AUTH_SECRET = "u" * 32
SERVICE_SECRET = "s" * 32
UNLUCKY = "unlucky number"
OURS, OTHERS = "ours", "others"
REST_SECONDS = 60.0
CALL_SECONDS = 30.0
UNSERVED_LANE = "image_edit.high"  # its jobs are for who claims them by a random call
CLOCK = SystemClock()
LIVE = (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING)
PNG = images.encoded("PNG")
# Who calls: the scopes of a user token, or the one scope of a service token.
CALLERS = ("team", "review", "ops", "worker", "packager", "backend")


class SmallGenerator:
    """One small picture for every call, at once: what is tried is all around it."""

    name = "small"

    def model_for(self, quality: str) -> str:
        """The model is governed, as a real one's calls are."""
        return f"small-{quality.lower()}"

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        """A picture that differs by job and index, as real ones do; none for UNLUCKY words."""
        if UNLUCKY in request.prompt:
            raise GenerationError(Outcome.OUTPUT_BLOCKED, "the image was blocked")
        picture = images.picture(8 + request.job_id % 8, 8 + request.index)
        return GeneratedImage(images.encoded("PNG", picture), "image/png", "small", Usage(1, 2, 3))

    @property
    def prompt_model(self) -> str:
        """Governed too."""
        return "small-words"

    async def enhance(self, prompt: str) -> Words:
        """A few words, whatever the prompt says."""
        return Words(f"softly lit, for {len(prompt)} characters", self.prompt_model, Usage(1, 2, 3))

    async def close(self) -> None:
        """Holds nothing."""


@dataclass
class House:
    """The services, and a channel to each."""

    urls: Mapping[str, DatabaseUrls]
    blob_url: str
    broker: MemoryBroker
    apps: dict[str, ServiceApp] = field(default_factory=dict)
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def channel_of(self, method: str) -> grpc.aio.Channel:
        """By `/contentshop.<service>.v1.Service/Method`."""
        return self.channels[method.split(".")[1]]

    def token(self, caller: str, service: str, team: str = OURS) -> str:
        """A token of one kind of CALLERS; a team's, for those that belong to one."""
        if caller in {"worker", "packager", "backend"}:
            return service_tokens(
                secret=SERVICE_SECRET, subject="fuzz", target=service, scope=caller, clock=CLOCK
            )()
        scopes = ["team", "review"] if caller == "review" else [caller]
        of = "" if caller == "ops" else team
        return mint_user_token(
            secret=AUTH_SECRET, issuer="contentshop", team=of, scopes=scopes, clock=CLOCK
        )

    async def call(
        self, stub: Any, method: str, request: Any, caller: str = "team", team: str = OURS
    ) -> Any:
        """One right call of a service's stub class, to build what is then fuzzed."""
        service = stub.__module__.split(".")[1]
        client = RpcClient(self.channels[service], lambda: self.token(caller, service, team))
        send = getattr(stub(client.channel), method)
        return await client.unary(send, request, timeout_seconds=CALL_SECONDS)

    async def repair(self) -> None:
        """Takes back what operators may have set: limits, paused lanes, a drained worker."""
        ops = ops_pb2_grpc.OpsServiceStub
        for team in (OURS, OTHERS):
            limits = ops_pb2.SetTeamLimitsRequest(team=team, max_live_jobs=0, calls_per_minute=0)
            await self.call(ops, "SetTeamLimits", limits, "ops")
            storage = assets_pb2.SetTeamStorageRequest(
                team=team, max_stored_bytes=0, calls_per_minute=0
            )
            await self.call(assets_pb2_grpc.AssetsOpsServiceStub, "SetTeamStorage", storage, "ops")
        for lane in LANES:
            await self.call(ops, "ResumeLane", ops_pb2.ResumeLaneRequest(lane=lane), "ops")
        resume = worker_pb2.ResumeWorkerRequest()
        await self.call(worker_pb2_grpc.WorkerServiceStub, "ResumeWorker", resume, "ops")

    async def come_to_rest(self) -> None:
        """Cancels what still waits or runs, of both teams, and waits until nothing does."""
        await self.repair()
        for team in (OURS, OTHERS):
            await eventually(
                partial(self._canceled, team),
                timeout_seconds=REST_SECONDS,
                what=f"the jobs of {team} have ended",
            )

    async def _canceled(self, team: str) -> bool:
        stub = enqueue_pb2_grpc.EnqueueServiceStub
        listing = enqueue_pb2.ListJobsRequest(states=LIVE, page_size=200)
        found = (await self.call(stub, "ListJobs", listing, team=team)).jobs
        for job in found:
            cancel = enqueue_pb2.CancelJobRequest(job_id=job.id)
            client = RpcClient(
                self.channels["enqueue"], lambda: self.token("team", "enqueue", team)
            )
            try:
                await stub(client.channel).CancelJob(
                    cancel, metadata=client._metadata(), timeout=CALL_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:  # it has ended
                    raise
        return not found


def _environ(house: House, folder: Path) -> dict[str, str]:
    settings = {
        "AUTH_SECRET": AUTH_SECRET,
        "SERVICE_SECRET": SERVICE_SECRET,
        "BLOB_URL": house.blob_url,
        "GRACE_SECONDS": "0.5",
        # What is tried is what calls do, not how many are let in.
        "CALLS_PER_MINUTE_PER_TEAM": "0",
        "SWEEP_SECONDS": "0.2",
        "HEARTBEAT_SECONDS": "0.5",
        "ARCHIVE_RING_SECONDS": "1",
        "ASSETS_CHUNK_SECONDS": "5",
        "ASSETS_SPOOL_FOLDER": str(folder),
        "ASSETS_UPLOAD_MAX_PIXELS": "4000000",  # refuses the same ways, in a tenth of the time
        "PACKAGER_SWEEP_SECONDS": "0.2",
        "PACKAGER_RETRY_SECONDS": "0.05",
        "WORKER_RENEW_SECONDS": "0.5",
        "WORKER_NAME": "worker-1",
        "WORKER_LANES": ",".join(lane for lane in LANES if lane != UNSERVED_LANE),
        "GENERATOR": "offline",
    }
    for service, urls in house.urls.items():
        settings |= urls.settings(service)
    for service in (*house.urls, "worker"):
        settings[f"{service.upper()}_LISTEN"] = "127.0.0.1:0"
    return settings


def _builds(given: Mapping[str, str], broker: MemoryBroker) -> dict[str, Any]:
    """How each is built, in the order they start: each finds those before it."""

    def build(module: Any, settings: type[Any], **changes: Any) -> Any:
        return lambda targets: module.build(
            env.load(settings, {**given, **targets}), broker=broker, **changes
        )

    return {
        "assets": build(assets_app, AssetsSettings),
        "enqueue": build(enqueue_app, EnqueueSettings),
        "packager": build(packager_app, PackagerSettings),
        "worker": build(worker_app, WorkerSettings, generator=SmallGenerator()),
    }


@asynccontextmanager
async def open_house(
    urls: Mapping[str, DatabaseUrls], folder: Path, blob_url: str = "", **settings: str
) -> AsyncIterator[House]:
    """A running house on three databases; blobs in the folder where no BLOB_URL is given."""
    broker = MemoryBroker(clock=CLOCK, ids=SystemIds())
    house = House(urls, blob_url or (folder / "blobs").as_uri(), broker)
    given = {**_environ(house, folder), **settings}
    targets: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        await broker.start()
        stack.push_async_callback(broker.close)
        for name, build in _builds(given, broker).items():
            app = build(targets)
            stack.push_async_callback(app.stop)
            await app.start()
            house.apps[name] = app
            targets[f"{name.upper()}_TARGET"] = address = f"127.0.0.1:{app.port}"
            house.channels[name] = open_channel(address)
        await _until_ready(house)
        try:
            yield house
        finally:
            await asyncio.gather(*(channel.close() for channel in house.channels.values()))


async def _until_ready(house: House) -> None:
    async def ready() -> bool:
        request = worker_pb2.GetWorkerRequest()
        stub = worker_pb2_grpc.WorkerServiceStub
        return bool((await house.call(stub, "GetWorker", request, "ops")).worker.name)

    await eventually(ready, timeout_seconds=CALL_SECONDS, what="the worker answers")
