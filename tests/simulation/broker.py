"""The broker, played: it loses, doubles, delays and reorders, and not only messages but confirms.

It also holds its readers to the rule that truth is a row: a message may say only what is committed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, ClassVar

from contentshop.enqueue.v1 import job_pb2, messages_pb2
from libs.common.broker import JOB_ENDED, JOB_ENQUEUED, Message
from libs.common.clock import Clock

LOST, UNCONFIRMED, DOUBLED, DELAYED = 0.05, 0.1, 0.2, 0.3  # shares of one die
LONGEST_DELAY_SECONDS = 30.0

Look = Callable[[str], list[Any]]


class PlayedBroker:
    """Keeps what is published, as the dice say.

    A publish without a confirm may have landed: the outbox must bear both.

    Attributes:
        queues: what waits, by name.
        told: of which jobs which kind of message has landed, ever.
    """

    connected = True
    of_this_world: ClassVar[PlayedBroker]

    def __init__(self, random: Random, clock: Clock, look: Look) -> None:
        self._random = random
        self._clock = clock
        self._look = look
        self._delayed: list[tuple[float, Message]] = []
        self.queues: dict[str, list[bytes]] = defaultdict(list)
        self.told: set[tuple[str, int]] = set()
        self.faulty = True
        PlayedBroker.of_this_world = self

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to close."""

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """One answer per message: confirmed or not, landed or not."""
        confirmed = []
        for message in messages:
            await asyncio.sleep(0)
            self._demand_committed(message)
            fate = self._random.random() if self.faulty else 1.0
            if fate > LOST:
                self._land(message, delayed=DOUBLED < fate < DELAYED)
            if UNCONFIRMED < fate < DOUBLED:
                self._land(message, delayed=fate < (UNCONFIRMED + DOUBLED) / 2)
            confirmed.append(fate > UNCONFIRMED)  # below: lost, or landed and not confirmed
        return confirmed

    def _land(self, message: Message, *, delayed: bool) -> None:
        if message.routing_key in {JOB_ENDED, JOB_ENQUEUED}:
            job_id = messages_pb2.JobEnded.FromString(message.body).job_id
            self.told.add((message.routing_key, job_id))
        if delayed:
            due = self._clock.monotonic() + self._random.uniform(0, LONGEST_DELAY_SECONDS)
            self._delayed.append((due, message))
        else:
            self.arrive(message)

    def arrive(self, message: Message) -> None:
        """It is in its queue: here one per routing key."""
        self.queues[message.routing_key].append(message.body)

    def _demand_committed(self, message: Message) -> None:
        ended = messages_pb2.JobEnded.FromString(message.body)  # all kinds begin alike
        job_id = ended.job_id
        if message.routing_key not in {JOB_ENDED, JOB_ENQUEUED}:
            job_id = messages_pb2.Doorbell.FromString(message.body).job_id
        ((made,),) = self._look(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'"
        )
        assert made >= job_id, f"a message of job {job_id}, which nobody committed"
        rows = self._look(f"SELECT state FROM jobs WHERE id = {job_id}")  # noqa: S608 - ours
        if message.routing_key == JOB_ENDED and rows:
            said = job_pb2.JobState.Name(ended.state).removeprefix("JOB_STATE_")
            assert rows[0][0] == said, f"job {job_id} is {rows[0][0]}, a message says {said}"

    async def consume(self, queue: str, handler: Any, *, prefetch: int) -> Any:
        """Nobody consumes: the walk takes messages by hand."""
        raise NotImplementedError

    def has(self, queue: str) -> bool:
        """Whether a message waits there."""
        self._bring_delayed()
        return bool(self.queues[queue])

    def take(self, queue: str) -> bytes | None:
        """Any message of a queue: order is not promised."""
        self._bring_delayed()
        waiting = self.queues[queue]
        return waiting.pop(self._random.randrange(len(waiting))) if waiting else None

    def _bring_delayed(self) -> None:
        now = self._clock.monotonic()
        for due, message in self._delayed:
            if due <= now or not self.faulty:
                self.arrive(message)
        self._delayed = [(due, one) for due, one in self._delayed if due > now and self.faulty]
