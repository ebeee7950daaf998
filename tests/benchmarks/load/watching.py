"""Watchers of ours and of the bare server, by bytes: decoding is the reader's cost, not ours."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

from contentshop.enqueue.v1 import enqueue_pb2, enqueue_pb2_grpc
from tests.benchmarks.echo import SERVICE
from tests.benchmarks.load.tools import CALL_SECONDS, Tools, wall_seconds

STREAMS_PER_CHANNEL = 900  # the server takes 1,000
OPEN_AT_ONCE = 100
OPEN_SECONDS = 120
WATCH_JOB = "/contentshop.enqueue.v1.EnqueueService/WatchJob"


async def watch_jobs(
    tools: Tools, *, target: str, teams: dict[str, str], first: int, last: int
) -> None:
    """Begins to watch jobs (id → team) until each has shown all events from first to last."""
    opened = asyncio.Semaphore(0)
    seen: list[tuple[int, int, float]] = []

    async def watch(job_id: int, team: str) -> None:
        client = tools.team(target, team)
        stub = enqueue_pb2_grpc.EnqueueServiceStub(client.channel)
        request = enqueue_pb2.WatchJobRequest(job_id=job_id)
        async for message in client.stream(stub.WatchJob, request):
            now = wall_seconds()
            if message.HasField("snapshot"):
                opened.release()
            if message.HasField("event") and message.event.sequence >= first:
                seen.append((job_id, message.event.sequence, now))
                if message.event.sequence >= last:
                    return

    work = [
        tools.tasks.spawn(watch(int(job_id), team), name="watch") for job_id, team in teams.items()
    ]
    for _ in teams:
        await opened.acquire()
    tools.kept["watch"] = (work, seen)


async def watched(tools: Tools) -> list[tuple[int, int, float]]:
    """Waits for the ends of what watch_jobs began: (job, event number, wall time) of each event."""
    work, seen = tools.kept.pop("watch")
    async with asyncio.timeout(CALL_SECONDS):
        await asyncio.gather(*work)
    return seen  # type: ignore[no-any-return]  # as kept


@dataclass(slots=True)
class Crowd:
    """Many watchers of one thing: when each got its last message."""

    got: list[tuple[bytes, float]] = field(default_factory=list)
    work: list[asyncio.Task[Any]] = field(default_factory=list)


async def crowd_open(
    tools: Tools, *, target: str, watchers: int, job: int = 0, team: str = ""
) -> None:
    """Opens so many watches of one job, or of the bare server; returns when all are there."""
    crowd = tools.kept["crowd"] = Crowd()
    places = asyncio.Semaphore(OPEN_AT_ONCE)
    opened = asyncio.Semaphore(0)
    channels = math.ceil(watchers / STREAMS_PER_CHANNEL)

    async def watch(number: int) -> None:
        await places.acquire()
        here = False
        try:
            async for message in _open(tools, target, 1 + number % channels, job, team):
                if here:
                    crowd.got.append((message, wall_seconds()))
                elif not job or _is_snapshot(message):
                    here = True
                    places.release()
                    opened.release()
        finally:
            if not here:  # it was refused: who waits for all looks
                places.release()
                opened.release()

    crowd.work = [tools.tasks.spawn(watch(n), name="crowd") for n in range(watchers)]
    async with asyncio.timeout(OPEN_SECONDS):
        for _ in range(watchers):
            await opened.acquire()
    _raise_faults(crowd.work)


def _open(tools: Tools, target: str, number: int, job: int, team: str) -> Any:
    if not job:
        bare: Any = tools.channel(target, number).unary_stream(f"/{SERVICE}/Watch")
        return bare(b"")
    client = tools.team(target, team, number)
    method: Any = client.channel.unary_stream(WATCH_JOB)
    request = enqueue_pb2.WatchJobRequest(job_id=job).SerializeToString()
    return client.stream(method, request)


def _raise_faults(work: list[asyncio.Task[Any]]) -> None:
    for task in work:
        if task.done():
            task.result()


def _is_snapshot(message: bytes) -> bool:
    return enqueue_pb2.WatchJobResponse.FromString(message).HasField("snapshot")


async def crowd_shout(tools: Tools, *, target: str, size: int) -> float:
    """Has the bare server tell all of its crowd; the wall time before."""
    begun = wall_seconds()
    method: Any = tools.channel(target).unary_unary(f"/{SERVICE}/Shout")
    await method(b"x" * size)
    return begun


async def crowd_heard(tools: Tools, *, watchers: int, sequence: int = 0) -> dict[str, Any]:
    """Waits until all have the event (or the shout): the wall times, and the size of a message."""
    crowd: Crowd = tools.kept["crowd"]
    times: list[float] = []
    size = 0
    async with asyncio.timeout(CALL_SECONDS):
        while len(times) < watchers:
            await asyncio.sleep(0.05)
            got, crowd.got = crowd.got, []
            for message, at in got:
                if not sequence or _is_event(message, sequence):
                    times.append(at)
                    size = len(message)
    return {"times": times, "bytes": size}


def _is_event(message: bytes, sequence: int) -> bool:
    return bool(enqueue_pb2.WatchJobResponse.FromString(message).event.sequence == sequence)


async def crowd_close(tools: Tools) -> None:
    """All go."""
    crowd: Crowd = tools.kept.pop("crowd")
    for task in crowd.work:
        task.cancel()
    await asyncio.gather(*crowd.work, return_exceptions=True)


async def connect(tools: Tools, *, target: str) -> None:
    """Waits until a server takes calls."""
    async with asyncio.timeout(CALL_SECONDS):
        await tools.channel(target).channel_ready()
