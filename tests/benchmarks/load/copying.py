"""Plain copies, the yardstick of zips; and how soon a download begins."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contentshop.packager.v1 import packager_pb2, packager_pb2_grpc
from tests.benchmarks.load.tools import Tools

READ_BYTES = 1024 * 1024


async def copy_files(_: Tools, *, sources: list[str], target: str) -> float:
    """Copies files into one new file, durable as a blob is; seconds."""
    return await asyncio.to_thread(_copy_files, [Path(s) for s in sources], Path(target))


def _copy_files(sources: list[Path], target: Path) -> float:
    begun = time.perf_counter()
    with target.open("wb", buffering=0) as out:
        for source in sources:
            with source.open("rb", buffering=0) as data:
                while piece := data.read(READ_BYTES):
                    out.write(piece)
        os.fsync(out.fileno())
    took = time.perf_counter() - begun
    target.unlink()
    return took


async def copy_s3(_: Tools, *, sources: list[str], target: str, size: int) -> float:
    """Streams presigned GETs into one presigned PUT; seconds."""
    return await asyncio.to_thread(_copy_s3, sources, target, size)


def _copy_s3(sources: list[str], target: str, size: int) -> float:
    import urllib3  # noqa: PLC0415 - of this scenario alone

    pool = urllib3.PoolManager(retries=False)

    def body() -> Iterator[bytes]:
        for source in sources:
            answer = pool.request("GET", source, preload_content=False)
            yield from answer.stream(READ_BYTES)
            answer.release_conn()

    begun = time.perf_counter()
    answer = pool.request("PUT", target, body=body(), headers={"Content-Length": str(size)})
    assert answer.status == 200, answer.status
    return time.perf_counter() - begun


async def first_byte(tools: Tools, *, target: str, team: str, job: int) -> dict[str, Any]:
    """Downloads an archive: seconds to the first chunk and to the end, and bytes."""
    client = tools.team(target, team)
    stub = packager_pb2_grpc.PackagerServiceStub(client.channel)
    request = packager_pb2.DownloadArchiveRequest(job_id=job)
    begun = time.perf_counter()
    first, size = 0.0, 0
    async for message in client.stream(stub.DownloadArchive, request):
        if message.chunk and not first:
            first = time.perf_counter() - begun
        size += len(message.chunk)
    return {"first_seconds": first, "seconds": time.perf_counter() - begun, "bytes": size}
