"""The broker seam: messages are hints, rows are the truth.

Two implementations of one Protocol: `libs.common.broker_memory` (inside `contentshop up` only)
and `libs.common.broker_amqp` (RabbitMQ). The topology is one table, `TOPOLOGY`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

EXCHANGE = "contentshop"
DEAD_EXCHANGE = "contentshop.dead"

JOB_TYPES = ("image_generation", "image_edit")
QUALITIES = ("fast", "high")


def lane_of(job_type: str, quality: str) -> str:
    """The lane's name: type and quality."""
    return f"{job_type}.{quality}"


def lane_queue(lane: str) -> str:
    """The queue (and routing key) of a lane's doorbells."""
    return f"jobs.{lane}"


LANES = tuple(lane_of(t, q) for t in JOB_TYPES for q in QUALITIES)

JOB_ENDED = "job.ended"
JOB_ENQUEUED = "job.enqueued"


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue, what it is bound to, and when a message is given up.

    Attributes:
        name: the queue's name.
        routing_keys: what EXCHANGE sends here.
        delivery_limit: redeliveries before the message goes to `dead.<name>`.
    """

    name: str
    routing_keys: tuple[str, ...]
    delivery_limit: int = 50


TOPOLOGY: tuple[Queue, ...] = (
    *(Queue(lane_queue(lane), (lane_queue(lane),)) for lane in LANES),
    Queue("assets.jobs", (JOB_ENQUEUED, JOB_ENDED)),
    Queue("packager.jobs", (JOB_ENDED,)),
)


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: routing key, bytes (a serialized protobuf) and an id for logs."""

    routing_key: str
    body: bytes
    message_id: str = ""


class Delivery(Protocol):
    """A message taken from a queue. Exactly one of ack, reject and requeue ends it."""

    @property
    def queue(self) -> str:
        """The queue it came from."""
        ...

    @property
    def body(self) -> bytes:
        """The bytes as published."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before, as far as the broker knows."""
        ...

    async def ack(self) -> None:
        """Done with it; harmless when the connection is gone (it will come again)."""
        ...

    async def reject(self) -> None:
        """Poison: to the dead letters, never again here."""
        ...

    async def requeue(self) -> None:
        """Not now: back to the queue (counts towards the delivery limit)."""
        ...


Handler = Callable[[Delivery], Awaitable[None]]


class Subscription(Protocol):
    """A consumer of one queue. Survives reconnects, paused or not."""

    async def pause(self) -> None:
        """Take no further deliveries (basic.cancel); what is delivered stays with the handler."""
        ...

    async def resume(self) -> None:
        """Take deliveries again."""
        ...

    async def close(self) -> None:
        """End for good; unfinished deliveries go back to the queue."""
        ...


class Broker(Protocol):
    """Publish with confirms; consume with acks."""

    async def start(self) -> None:
        """Begin connecting in the background; does not wait for the broker to be there."""
        ...

    async def close(self) -> None:
        """End subscriptions, then connections."""
        ...

    @property
    def connected(self) -> bool:
        """Whether publishing and consuming work just now, for readiness."""
        ...

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """Publish all in flight together; True for each that the broker confirmed AND routed.

        Raises UnavailableError when there is no connection or no confirm in time; then any of
        them may or may not have landed.
        """
        ...

    async def consume(self, queue: str, handler: Handler, *, prefetch: int) -> Subscription:
        """Call handler for each delivery, at most `prefetch` at once.

        A handler that raises gets its delivery requeued after a short back-off, and the fault
        is logged; CancelledError passes.
        """
        ...
