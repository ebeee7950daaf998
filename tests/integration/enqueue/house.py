"""The real enqueue app on loopback with a memory broker, and clients for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from contentshop.enqueue.v1 import (
    enqueue_pb2,
    enqueue_pb2_grpc,
    execution_pb2,
    execution_pb2_grpc,
    job_pb2,
    ops_pb2,
    ops_pb2_grpc,
)
from libs.common import env
from libs.common.auth import mint_user_token, service_tokens
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import Clock, SystemClock
from libs.common.grpc_client import RpcClient, open_channel
from libs.common.ids import SystemIds
from services.enqueue.app import EnqueueApp, build
from services.enqueue.settings import Settings
from tests.fakes.assets_backend import FakeAssetsBackend
from tests.support.databases import DatabaseUrls

SECRET = "s" * 32
USER_SECRET = "u" * 32
CLOCK = SystemClock()
PATIENCE_SECONDS = 60.0  # of a busy machine


class Clients:
    """What tests talk to an enqueue with, wherever it runs."""

    def __init__(self, port: int, assets: FakeAssetsBackend) -> None:
        self.port = port
        self.assets = assets
        self.clients: list[RpcClient] = []

    def client(self, token: Any) -> RpcClient:
        """A client of its own channel; closed with the others."""
        client = RpcClient(open_channel(f"127.0.0.1:{self.port}"), token)
        self.clients.append(client)
        return client

    async def close(self) -> None:
        """Closes every client."""
        for client in self.clients:
            await client.close()

    def team(self, name: str = "red", *scopes: str) -> Team:
        """A team's client, of scope `team` where none is named; the team has files 1 to 20."""
        self.assets.files.setdefault(name, set(range(1, 21)))
        token = mint_user_token(
            secret=USER_SECRET,
            issuer="contentshop",
            team=name,
            scopes=scopes or ["team"],
            clock=CLOCK,
        )
        return Team(self.client(lambda: token))

    def ops(self) -> Ops:
        """An operator's client."""
        token = mint_user_token(
            secret=USER_SECRET,
            issuer="contentshop",
            team="",
            scopes=["ops"],
            clock=CLOCK,
            subject="operator",
        )
        return Ops(self.client(lambda: token))

    def worker(self, name: str = "w1") -> Worker:
        """A worker's client."""
        return Worker(self.client(self.service_token("worker")), name)

    def service_token(self, scope: str, target: str = "enqueue") -> Any:
        """A source of service tokens."""
        return service_tokens(
            secret=SECRET, subject="tests", target=target, scope=scope, clock=CLOCK
        )


class House(Clients):
    """enqueue in this process."""

    def __init__(
        self, app: EnqueueApp, assets: FakeAssetsBackend, broker: MemoryBroker, urls: DatabaseUrls
    ) -> None:
        super().__init__(app.port, assets)
        self.app = app
        self.broker = broker
        self.urls = urls


class Team:
    """EnqueueService for one team."""

    def __init__(self, client: RpcClient) -> None:
        self.client = client
        self.stub = enqueue_pb2_grpc.EnqueueServiceStub(client.channel)

    async def call(self, method: str, request: Any) -> Any:
        return await self.client.unary(
            getattr(self.stub, method), request, timeout_seconds=PATIENCE_SECONDS
        )

    async def generate(self, **fields: Any) -> job_pb2.Job:
        request = generation(**fields)
        return (await self.call("EnqueueGeneration", request)).job  # type: ignore[no-any-return]

    async def get(self, job_id: int) -> job_pb2.Job:
        answer = await self.call("GetJob", enqueue_pb2.GetJobRequest(job_id=job_id))
        return answer.job  # type: ignore[no-any-return]

    async def cancel(self, job_id: int) -> job_pb2.Job:
        answer = await self.call("CancelJob", enqueue_pb2.CancelJobRequest(job_id=job_id))
        return answer.job  # type: ignore[no-any-return]

    async def events(self, job_id: int) -> list[job_pb2.JobEvent]:
        request = enqueue_pb2.ListJobEventsRequest(job_id=job_id, page_size=1000)
        return list((await self.call("ListJobEvents", request)).events)

    async def credits(self) -> Any:
        return (await self.call("GetCredits", enqueue_pb2.GetCreditsRequest())).credits

    async def entries(self, **fields: Any) -> list[Any]:
        request = enqueue_pb2.ListCreditEntriesRequest(**fields)
        return list((await self.call("ListCreditEntries", request)).entries)

    def watch(self, job_id: int, after: int = 0) -> AsyncIterator[Any]:
        request = enqueue_pb2.WatchJobRequest(job_id=job_id, after_sequence=after)
        return self.client.stream(self.stub.WatchJob, request)


class Ops:
    """OpsService for an operator."""

    def __init__(self, client: RpcClient) -> None:
        self.client = client
        self.stub = ops_pb2_grpc.OpsServiceStub(client.channel)

    async def call(self, method: str, request: Any) -> Any:
        return await self.client.unary(
            getattr(self.stub, method), request, timeout_seconds=PATIENCE_SECONDS
        )

    async def grant(self, team: str, amount: int, request_id: str = "g1") -> Any:
        request = ops_pb2.GrantCreditsRequest(request_id=request_id, team=team, amount=amount)
        return (await self.call("GrantCredits", request)).credits


class Worker:
    """ExecutionService for one worker."""

    def __init__(self, client: RpcClient, name: str) -> None:
        self.client = client
        self.name = name
        self.stub = execution_pb2_grpc.ExecutionServiceStub(client.channel)

    async def call(self, method: str, request: Any) -> Any:
        return await self.client.unary(
            getattr(self.stub, method), request, timeout_seconds=PATIENCE_SECONDS
        )

    async def claim(self, job_id: int, claim_id: str = "c1") -> Any:
        request = execution_pb2.ClaimJobRequest(job_id=job_id, claim_id=claim_id, worker=self.name)
        return await self.call("ClaimJob", request)

    async def record(
        self, job_id: int, fence: int, index: int, file_id: int, *, cost_micros: int = 0
    ) -> Any:
        request = execution_pb2.RecordImageRequest(
            job_id=job_id,
            fence=fence,
            index=index,
            file_id=file_id,
            content_type="image/png",
            width=10,
            height=10,
            size_bytes=100,
            sha256="0" * 64,
            model="m",
            usage=job_pb2.Usage(
                prompt_tokens=1, output_tokens=2, total_tokens=3, cost_micros=cost_micros
            ),
        )
        return await self.call("RecordImage", request)

    async def fail(
        self, job_id: int, fence: int, index: int, outcome: str, message: str = "no"
    ) -> Any:
        request = execution_pb2.RecordImageFailureRequest(
            job_id=job_id, fence=fence, index=index, outcome=outcome, message=message
        )
        return await self.call("RecordImageFailure", request)

    async def finish(self, job_id: int, fence: int) -> Any:
        request = execution_pb2.FinishJobRequest(job_id=job_id, fence=fence)
        return await self.call("FinishJob", request)

    async def renew(self, held: dict[int, int], *, fresh: bool = False) -> Any:
        leases = [execution_pb2.HeldLease(job_id=j, fence=f) for j, f in held.items()]
        request = execution_pb2.RenewLeasesRequest(
            worker=self.name, leases=leases, slots=4, fresh=fresh
        )
        return await self.call("RenewLeases", request)

    async def release(self, job_id: int, fence: int, cause: Any, **fields: Any) -> Any:
        request = execution_pb2.ReleaseJobRequest(job_id=job_id, fence=fence, cause=cause, **fields)
        return await self.call("ReleaseJob", request)

    async def make_all(self, job_id: int) -> Any:
        """Claims, records every image with file ids of its own, finishes."""
        claim = await self.claim(job_id, f"claim-{job_id}")
        for image in claim.images:
            await self.record(job_id, claim.fence, image.index, job_id * 100 + image.index)
        return await self.finish(job_id, claim.fence)


def generation(**fields: Any) -> enqueue_pb2.EnqueueGenerationRequest:
    """A right request for one image of upload 1, changed by fields."""
    inputs = fields.pop("input", None)
    if "product_images" not in fields:
        fields["product_images"] = [{"upload_url": "/api/uploads/1/file"}]
    request = enqueue_pb2.EnqueueGenerationRequest(**fields)
    if inputs is not None:
        request.input.update(inputs)
    return request


def environment(urls: DatabaseUrls, assets_port: int, **settings: str) -> dict[str, str]:
    """The environment variables of an enqueue of the tests, on any free port."""
    return {
        **urls.settings("enqueue"),
        "ENQUEUE_LISTEN": "127.0.0.1:0",
        "ASSETS_TARGET": f"127.0.0.1:{assets_port}",
        "AUTH_SECRET": USER_SECRET,
        "SERVICE_SECRET": SECRET,
        "SWEEP_SECONDS": "0.2",
        "GRACE_SECONDS": "0.5",
        "LEASE_SECONDS": "60",  # nobody renews here: none runs out because the machine stalls
        **settings,
    }


@asynccontextmanager
async def fake_assets() -> AsyncIterator[FakeAssetsBackend]:
    """assets as far as enqueue needs it, for an enqueue in a process of its own."""
    assets = FakeAssetsBackend(SECRET)
    await assets.server.start()
    try:
        yield assets
    finally:
        await assets.server.stop()


@asynccontextmanager
async def open_house(
    urls: DatabaseUrls, clock: Clock = CLOCK, /, **settings: str
) -> AsyncIterator[House]:
    """A running house; `settings` are environment variables, `clock` is the service's own."""
    assets = FakeAssetsBackend(SECRET)
    await assets.server.start()
    broker = MemoryBroker(clock=CLOCK, ids=SystemIds())
    await broker.start()
    environ = environment(urls, assets.server.port, **settings)
    app = build(env.load(Settings, environ), broker=broker, clock=clock)
    await app.start()
    house = House(app, assets, broker, urls)
    try:
        yield house
    finally:
        await house.close()
        await app.stop()
        await broker.close()
        await assets.server.stop()
