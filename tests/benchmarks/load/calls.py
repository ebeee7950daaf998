"""Closed loops: EnqueueGeneration and its yardsticks."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from contextlib import AsyncExitStack
from typing import Any

import psycopg

from contentshop.assets.v1 import assets_pb2, assets_pb2_grpc, backend_pb2
from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, enqueue_pb2_grpc
from libs.common.grpc_client import RpcClient
from tests.benchmarks.echo import SERVICE
from tests.benchmarks.load.tools import CALL_SECONDS, Tools, closed_loop
from tests.fixtures import images

# The size of a job's request.
PAYLOAD = b"x" * 120
INSERT = "INSERT INTO bench (payload) VALUES (%s)"


async def upload(tools: Tools, *, target: str, teams: list[str]) -> dict[str, str]:
    """One photo per team: its upload URL."""
    data = images.encoded("PNG")
    header = assets_pb2.UploadHeader(filename="photo.png", size_bytes=len(data))
    parts = [
        assets_pb2.UploadFileRequest(header=header),
        assets_pb2.UploadFileRequest(chunk=data),
    ]
    found = {}
    for team in teams:
        client = tools.team(target, team)
        stub = assets_pb2_grpc.AssetsServiceStub(client.channel)
        answer = await client.unary(stub.UploadFile, parts, timeout_seconds=CALL_SECONDS)
        found[team] = answer.file.upload_url
    return found


def generation(photo: str, count: int, *, keyed: bool = True) -> Any:
    """The request of a job of `count` images."""
    return enqueue_pb2.EnqueueGenerationRequest(
        request_id=secrets.token_hex(8) if keyed else "",
        product_images=[backend_pb2.ImageRef(upload_url=photo)],
        number_of_variations=count,
    )


async def enqueue_one(client: RpcClient, request: Any) -> int:
    """The new job's id."""
    stub = enqueue_pb2_grpc.EnqueueServiceStub(client.channel)
    answer = await client.unary(stub.EnqueueGeneration, request, timeout_seconds=CALL_SECONDS)
    return int(answer.job.id)


async def enqueue(
    tools: Tools,
    *,
    target: str,
    photos: dict[str, str],
    callers: int,
    seconds: float,
    keyed: bool = True,
) -> dict[str, float]:
    """Callers enqueue jobs of one image, each for one of the teams."""
    teams = sorted(photos)
    clients = [tools.team(target, teams[n % len(teams)]) for n in range(callers)]
    stubs = [enqueue_pb2_grpc.EnqueueServiceStub(client.channel) for client in clients]

    async def call(number: int) -> None:
        request = generation(photos[teams[number % len(teams)]], 1, keyed=keyed)
        method = stubs[number].EnqueueGeneration
        await clients[number].unary(method, request, timeout_seconds=CALL_SECONDS)

    return await closed_loop(call, callers, seconds)


async def enqueue_batches(
    tools: Tools,
    *,
    target: str,
    photos: dict[str, str],
    variants: int,
    callers: int,
    seconds: float,
) -> dict[str, float]:
    """Callers enqueue batches of so many variants, in turn for each of the teams."""
    teams = sorted(photos)
    turn = itertools.count()

    async def call(_: int) -> None:
        team = teams[next(turn) % len(teams)]
        client = tools.team(target, team)
        stub = enqueue_pb2_grpc.EnqueueServiceStub(client.channel)
        photo = backend_pb2.ImageRef(upload_url=photos[team])
        request = enqueue_pb2.EnqueueBatchRequest(
            request_id=secrets.token_hex(8),
            variants=[
                batch_pb2.BatchVariant(product_images=[photo], variant=str(number))
                for number in range(variants)
            ],
        )
        await client.unary(stub.EnqueueBatch, request, timeout_seconds=CALL_SECONDS)

    return await closed_loop(call, callers, seconds)


async def echo(tools: Tools, *, target: str, callers: int, seconds: float) -> dict[str, float]:
    """The same over a bare grpc.aio server."""
    method: Any = tools.channel(target).unary_unary(f"/{SERVICE}/Echo")

    async def call(_: int) -> None:
        await method(PAYLOAD, timeout=CALL_SECONDS)

    return await closed_loop(call, callers, seconds)


async def commit(_: Tools, *, dsn: str, callers: int, seconds: float) -> dict[str, float]:
    """Each caller inserts and commits one row on a connection of its own."""
    async with AsyncExitStack() as stack:
        connections = [await _connect(stack, dsn) for _ in range(callers)]

        async def call(number: int) -> None:
            await connections[number].execute(INSERT, (PAYLOAD,))

        return await closed_loop(call, callers, seconds)


async def row_publish(
    _: Tools, *, dsn: str, amqp_url: str, callers: int, seconds: float
) -> dict[str, float]:
    """One row committed, then one confirmed publish to a durable queue, in process."""
    import aio_pika  # noqa: PLC0415 - heavy, and of this scenario alone

    async with AsyncExitStack() as stack:
        connections = [await _connect(stack, dsn) for _ in range(callers)]
        broker = await stack.enter_async_context(await aio_pika.connect(amqp_url))
        channel = await broker.channel(publisher_confirms=True)
        queue = await channel.declare_queue("bench", durable=True)

        async def call(number: int) -> None:
            await connections[number].execute(INSERT, (PAYLOAD,))
            message = aio_pika.Message(PAYLOAD, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, queue.name, mandatory=True)

        figures = await closed_loop(call, callers, seconds)
        await queue.purge()
        return figures


async def _connect(stack: AsyncExitStack, dsn: str) -> psycopg.AsyncConnection[Any]:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    return await stack.enter_async_context(connection)


async def submit(
    tools: Tools, *, target: str, photos: dict[str, str], jobs: int, images: int, callers: int = 8
) -> list[int]:
    """So many jobs, over all the teams; their ids."""
    waiting = list(range(jobs))
    teams = sorted(photos)
    ids: list[int] = []

    async def caller() -> None:
        while waiting:
            team = teams[waiting.pop() % len(teams)]
            ids.append(
                await enqueue_one(tools.team(target, team), generation(photos[team], images))
            )

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return ids
