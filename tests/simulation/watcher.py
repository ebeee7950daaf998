"""Somebody who watches a job over the wires, loses the stream, and comes back with the cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, suppress
from random import Random

from contentshop.enqueue.v1 import enqueue_pb2, enqueue_pb2_grpc
from libs.common.errors import ContentshopError
from libs.common.grpc_client import RpcClient

LEAVES = 0.1  # after a message
BACK_SECONDS = 3.0


class Watcher:
    """Watches one job to its end.

    Attributes:
        job_id: which.
        cursor: the last number it was told.
        final: it was told that nothing follows.
        comings: how often it had to begin.
    """

    def __init__(self, random: Random, client: RpcClient, job_id: int) -> None:
        self._random = random
        self._client = client
        self._stub = enqueue_pb2_grpc.EnqueueServiceStub(client.channel)
        self._broken: list[str] = []
        self.job_id = job_id
        self.cursor = 0
        self.final = False
        self.comings = 0

    async def watch(self) -> None:
        """Until the end, however often it takes."""
        while not self.final:
            self.comings += 1
            with suppress(ContentshopError):
                await self._watch_once()
            await asyncio.sleep(self._random.uniform(0, BACK_SECONDS))

    async def _watch_once(self) -> None:
        request = enqueue_pb2.WatchJobRequest(job_id=self.job_id, after_sequence=self.cursor)
        async with aclosing(self._client.stream(self._stub.WatchJob, request)) as answers:
            async for answer in answers:
                self._take(answer)
                if self._random.random() < LEAVES:
                    return
        if not self.final:
            self._broken.append("its stream ended without a last message")

    def _take(self, answer: enqueue_pb2.WatchJobResponse) -> None:
        if self.final:
            self._broken.append(f"was told {answer.sequence} after its end")
        kind = answer.WhichOneof("update")
        first = answer.event.sequence if kind == "event" else answer.snapshot.skipped_from
        if first not in (self.cursor + 1, 0) or (kind == "event" and not first):
            self._broken.append(f"was told {first} after {self.cursor}")
        if answer.sequence < self.cursor or (not first and answer.sequence != self.cursor):
            self._broken.append(f"went from {self.cursor} to {answer.sequence} by a {kind}")
        self.cursor = answer.sequence
        self.final = answer.final

    def broken(self, last: int) -> Iterator[str]:
        """One line per promise of a watch that does not hold at rest.

        Args:
            last: the number of the job's last event.
        """
        name = f"job {self.job_id}, watched"
        yield from (f"{name}: {broken}" for broken in self._broken)
        if not self.final:
            yield f"{name}: no end after {self.comings} comings"
        elif self.cursor != last:
            yield f"{name}: ended at {self.cursor} of {last}"
