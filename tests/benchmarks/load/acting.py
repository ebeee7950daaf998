"""Acting as a worker by its RPCs: claims, records, and big images stored."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

from contentshop.assets.v1 import backend_pb2, backend_pb2_grpc
from contentshop.enqueue.v1 import execution_pb2, execution_pb2_grpc
from libs.common.grpc_client import RpcClient
from tests.benchmarks.load.calls import enqueue_one, generation
from tests.benchmarks.load.tools import CALL_SECONDS, Tools, spread
from tests.fixtures.images import PNG_SIGNATURE

CHUNK_BYTES = 512 * 1024
STORES_AT_ONCE = 2


class ActingWorker:
    """ExecutionService as a worker calls it."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._stub = execution_pb2_grpc.ExecutionServiceStub(client.channel)

    async def call(self, method: str, request: Any) -> Any:
        return await self._client.unary(
            getattr(self._stub, method), request, timeout_seconds=CALL_SECONDS
        )

    async def claim(self, job_id: int) -> int:
        """The fence."""
        request = execution_pb2.ClaimJobRequest(
            job_id=job_id, claim_id=secrets.token_hex(8), worker="bench"
        )
        return int((await self.call("ClaimJob", request)).fence)

    async def record(self, job_id: int, fence: int, index: int, file_id: int, size: int) -> None:
        request = execution_pb2.RecordImageRequest(
            job_id=job_id,
            fence=fence,
            index=index,
            file_id=file_id,
            content_type="image/png",
            width=40,
            height=24,
            size_bytes=size,
            sha256="0" * 64,
            model="zero",
        )
        await self.call("RecordImage", request)

    async def finish(self, job_id: int, fence: int) -> None:
        await self.call("FinishJob", execution_pb2.FinishJobRequest(job_id=job_id, fence=fence))


def _worker(tools: Tools, target: str) -> ActingWorker:
    return ActingWorker(tools.service(target, "enqueue", "worker"))


async def claim(tools: Tools, *, target: str, jobs: list[int]) -> dict[str, int]:
    """Claims jobs: their fences."""
    worker = _worker(tools, target)
    return {str(job_id): await worker.claim(job_id) for job_id in jobs}


async def record(
    tools: Tools, *, target: str, fences: dict[str, int], images: int, first: int, rate: float
) -> dict[str, float]:
    """Records image `first` to `images` of every job in turn, so many a second (an open loop)."""
    worker = _worker(tools, target)
    took: list[float] = []

    async def one(job_id: int, fence: int, index: int) -> None:
        begun = time.perf_counter()
        await worker.record(job_id, fence, index, job_id * 100 + index, 100)
        took.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    sent = 0
    async with asyncio.TaskGroup() as group:
        for index in range(first, images + 1):
            for job_id, fence in fences.items():
                await asyncio.sleep(max(0.0, begun + sent / rate - time.perf_counter()))
                group.create_task(one(int(job_id), fence, index))
                sent += 1
    return {"rate": sent / (time.perf_counter() - begun), **spread(took)}


async def finish(tools: Tools, *, target: str, fences: dict[str, int]) -> None:
    """Finishes jobs."""
    worker = _worker(tools, target)
    for job_id, fence in fences.items():
        await worker.finish(int(job_id), fence)


async def make_big_job(
    tools: Tools,
    *,
    enqueue: str,
    assets: str,
    team: str,
    photo: str,
    images: int,
    image_bytes: int,
) -> int:
    """A job of big images, stored at assets, recorded and finished; its id."""
    job_id = await enqueue_one(tools.team(enqueue, team), generation(photo, images))
    worker = _worker(tools, enqueue)
    fence = await worker.claim(job_id)
    client = tools.service(assets, "assets", "worker")
    store = backend_pb2_grpc.AssetsBackendServiceStub(client.channel).StoreGenerated
    places = asyncio.Semaphore(STORES_AT_ONCE)

    async def make(index: int) -> None:
        async with places:
            data = await asyncio.to_thread(_noise, image_bytes)
            header = backend_pb2.StoreGeneratedHeader(
                team=team,
                job_id=job_id,
                image_index=index,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                model="zero",
                attempt=1,
            )
            answer = await client.unary(store, _parts(header, data), timeout_seconds=120)
        stored = answer.image
        await worker.record(job_id, fence, index, stored.file_id, stored.size_bytes)

    async with asyncio.TaskGroup() as group:
        for index in range(1, images + 1):
            group.create_task(make(index))
    await worker.finish(job_id, fence)
    return job_id


def _parts(
    header: backend_pb2.StoreGeneratedHeader, data: bytes
) -> Iterator[backend_pb2.StoreGeneratedRequest]:
    yield backend_pb2.StoreGeneratedRequest(header=header)
    for at in range(0, len(data), CHUNK_BYTES):
        yield backend_pb2.StoreGeneratedRequest(chunk=data[at : at + CHUNK_BYTES])


def _noise(size: int) -> bytes:
    """A PNG of about so many bytes that nothing can pack; by hand, since Pillow takes seconds."""
    side = int((size / 3) ** 0.5)
    pixels = bytearray(os.urandom(side * (side * 3 + 1)))
    pixels[:: side * 3 + 1] = bytes(side)  # each row begins with its filter: none
    header = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels, 0)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"".join((PNG_SIGNATURE, *chunks))
