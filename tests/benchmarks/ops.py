"""A worker's own door, for ops."""

from __future__ import annotations

from contentshop.worker.v1 import worker_pb2, worker_pb2_grpc
from libs.common.auth import mint_user_token
from libs.common.clock import SystemClock
from libs.common.grpc_client import RpcClient, open_channel
from tests.support.fleet import AUTH_SECRET

CALL_SECONDS = 10.0


class WorkerDoor:
    """Drains and resumes one worker."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._token = mint_user_token(
            secret=AUTH_SECRET, issuer="contentshop", team="", scopes=["ops"], clock=SystemClock()
        )

    async def drain(self) -> None:
        """It takes no further jobs."""
        await self._call("DrainWorker", worker_pb2.DrainWorkerRequest())

    async def resume(self) -> None:
        """It takes jobs again."""
        await self._call("ResumeWorker", worker_pb2.ResumeWorkerRequest())

    async def _call(self, method: str, request: object) -> None:
        client = RpcClient(open_channel(self._target), lambda: self._token)
        try:
            stub = worker_pb2_grpc.WorkerServiceStub(client.channel)
            await client.unary(getattr(stub, method), request, timeout_seconds=CALL_SECONDS)
        finally:
            await client.close()
