"""Follows a job or a batch to its end, whatever happens to the stream: by its cursor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from cli.connection import Connection
from cli.errors import NotRunningError
from contentshop.enqueue.v1 import enqueue_pb2
from libs.common.backoff import Backoff
from libs.common.errors import ResourceExhaustedError, UnavailableError

FIRST_PATIENCE_SECONDS = 3.0  # before anything was heard
PATIENCE_SECONDS = 60.0  # of silence, once the server was there
BACKOFF = Backoff(first_seconds=0.2, max_seconds=3.0)

Notice = Callable[[str], None]
Response = TypeVar("Response", enqueue_pb2.WatchJobResponse, enqueue_pb2.WatchBatchResponse)


async def follow(
    shop: Connection,
    job_id: int,
    *,
    after: int = 0,
    notice: Notice,
    known_to_run: bool = False,
) -> AsyncGenerator[enqueue_pb2.WatchJobResponse, None]:
    """Every message of the job's watch, heartbeats apart, the last of them final.

    Args:
        shop: where the job is; its addresses may change on the way.
        job_id: the job.
        after: the last event number seen.
        notice: told, in a sentence, when the stream broke and when it is back.
        known_to_run: the server answered just now, so a silence is worth waiting out.

    Raises:
        NotRunningError: nobody answered for PATIENCE_SECONDS.
        ContentshopError: the server refused.
    """
    cursor = after

    def stream() -> AsyncGenerator[enqueue_pb2.WatchJobResponse, None]:
        request = enqueue_pb2.WatchJobRequest(job_id=job_id, after_sequence=cursor)
        return shop.enqueue.stream(lambda stub: stub.WatchJob, request)

    messages = _resumed(shop, stream, notice=notice, known_to_run=known_to_run)
    async with aclosing(messages) as responses:
        async for response in responses:
            cursor = max(cursor, response.sequence)
            yield response


async def follow_batch(
    shop: Connection, batch_id: int, *, after: str = "", notice: Notice, known_to_run: bool = False
) -> AsyncGenerator[enqueue_pb2.WatchBatchResponse, None]:
    """As `follow`, of all jobs of a batch."""
    cursor = after

    def stream() -> AsyncGenerator[enqueue_pb2.WatchBatchResponse, None]:
        request = enqueue_pb2.WatchBatchRequest(batch_id=batch_id, after_cursor=cursor)
        return shop.enqueue.stream(lambda stub: stub.WatchBatch, request)

    messages = _resumed(shop, stream, notice=notice, known_to_run=known_to_run)
    async with aclosing(messages) as responses:
        async for response in responses:
            cursor = response.cursor
            yield response


async def _resumed(
    shop: Connection,
    open_stream: Callable[[], AsyncGenerator[Response, None]],
    *,
    notice: Notice,
    known_to_run: bool,
) -> AsyncGenerator[Response, None]:
    """The messages of a watch that is opened again, at the cursor, whenever it breaks."""
    failures = 0
    heard = known_to_run
    heard_at = shop.clock.monotonic()
    while True:
        broken: Exception | None = None
        try:
            async with aclosing(open_stream()) as stream:
                async for response in stream:
                    if failures:
                        notice("connected again")
                    failures, heard, heard_at = 0, True, shop.clock.monotonic()
                    if response.WhichOneof("update") != "heartbeat":
                        yield response
                    if response.final:
                        return
        except (UnavailableError, ResourceExhaustedError, NotRunningError) as error:
            broken = error
        silence = shop.clock.monotonic() - heard_at
        if broken is not None and silence > (PATIENCE_SECONDS if heard else _first(broken)):
            raise broken
        failures += 1
        if failures == 1:
            notice("the connection is gone; trying again")
        await asyncio.sleep(_pause(failures, broken, shop))


def _first(broken: Exception) -> float:
    return 0.0 if isinstance(broken, NotRunningError) else FIRST_PATIENCE_SECONDS


def _pause(failures: int, broken: Exception | None, shop: Connection) -> float:
    wait = BACKOFF.wait(failures, shop.ids)
    if isinstance(broken, ResourceExhaustedError):
        return max(wait, broken.retry_after_seconds or 0.0)
    return wait
