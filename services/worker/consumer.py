"""The broker's door: doorbells are taken with a free slot, claimed, and acked right after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog
from google.protobuf.message import DecodeError

from contentshop.enqueue.v1 import messages_pb2
from libs.common.backoff import Backoff
from libs.common.broker import Broker, Delivery, Subscription, lane_queue
from libs.common.crash import CrashPoints
from libs.common.errors import (
    ContentshopError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)
from libs.common.ids import Ids
from libs.common.lifecycle import TaskOwner
from services.worker.circuit import GeneratorCircuit
from services.worker.domain import Claim
from services.worker.inhand import JobsInHand

log = structlog.get_logger()

SCHEMA_VERSION = 1
HANDLERS_SECONDS = 6.0  # one claim call, and a little


class Claims(Protocol):
    """Who gives jobs out."""

    async def claim(self, job_id: int, claim_id: str) -> Claim:
        """Takes a job; raises NotFoundError and FailedPreconditionError: forget it."""
        ...


class Consumer:
    """Takes doorbells while there is a slot, the generator is well and nobody said drain.

    Args:
        broker: where doorbells come from.
        lanes: which doorbells.
        claims: turns doorbells into jobs.
        known: set when enqueue knows that this process has begun; nothing is taken before.
        hand: the slots.
        circuit: whether the generator is well.
        carry: starts on a claimed job.
        renew_soon: told after a claim that took several tries, whose lease is partly used up, and
            when the lanes served change.
        ids: for claim ids and jitter.
        crash: W1 and W2 are here.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        lanes: Sequence[str],
        claims: Claims,
        known: asyncio.Event,
        hand: JobsInHand,
        circuit: GeneratorCircuit,
        carry: Callable[[Claim], None],
        renew_soon: Callable[[], None],
        ids: Ids,
        crash: CrashPoints,
    ) -> None:
        self._broker = broker
        self._lanes = tuple(lanes)
        self._claims = claims
        self._known = known
        self._hand = hand
        self._circuit = circuit
        self._carry = carry
        self._renew_soon = renew_soon
        self._ids = ids
        self._crash = crash
        self._backoff = Backoff(first_seconds=0.2, max_seconds=3.0)
        self._subscriptions: list[Subscription] = []
        self._taking = True  # what the subscriptions were told last
        self._settling = asyncio.Lock()
        self._closing = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._handling = 0
        self._owner = TaskOwner()
        self.draining = False

    async def start(self) -> None:
        """Subscribes to every lane, as soon as enqueue knows this worker."""
        self._hand.on_change = self.changed
        self._circuit.on_change = self.changed
        self._owner.spawn(self._subscribe(), name="consumer.subscribe")

    async def _subscribe(self) -> None:
        await self._known.wait()
        async with self._settling:  # a handler may want to pause before all are there
            for lane in self._lanes:
                subscription = await self._broker.consume(
                    lane_queue(lane), self._handle, prefetch=1
                )
                self._subscriptions.append(subscription)
                if not self._taking:  # drained meanwhile
                    await subscription.pause()

    async def stop(self) -> None:
        """Takes no more; a claim that is under way is brought to its end first."""
        self._closing.set()
        await self._settle()
        with suppress(TimeoutError):
            async with asyncio.timeout(HANDLERS_SECONDS):
                await self._idle.wait()
        await self._owner.close()
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()

    async def drain(self) -> None:
        """Takes no further jobs until resume."""
        self.draining = True
        await self._settle()
        self._renew_soon()  # the renewal says which lanes are served

    async def resume(self) -> None:
        """Takes jobs again."""
        self.draining = False
        await self._settle()
        self._renew_soon()

    def changed(self) -> None:
        """Slots or the generator's health changed: pause or resume soon, if that is due."""
        if self._may_take() != self._taking and not self._closing.is_set():
            self._owner.spawn(self._settle(), name="consumer.settle")

    def _may_take(self) -> bool:
        if self.draining or self._closing.is_set() or self._hand.taken >= self._hand.slots:
            return False
        # One job at a time finds out whether the key is taken again.
        return self._circuit.healthy or (self._circuit.probing and self._hand.taken == 0)

    async def _settle(self) -> None:
        """Pauses or resumes all subscriptions, until they are as they should be."""
        async with self._settling:
            while (wanted := self._may_take()) != self._taking:
                for subscription in self._subscriptions:
                    await (subscription.resume() if wanted else subscription.pause())
                self._taking = wanted

    async def _handle(self, delivery: Delivery) -> None:
        self._crash.here("W1")
        doorbell = _decode(delivery.body)
        if doorbell is None:
            log.warning("doorbell.refused", queue=delivery.queue, bytes=len(delivery.body))
            await delivery.reject()
            return
        if not self._may_take():
            # It was on its way when the last slot was taken: for another worker, not to park.
            await self._settle()
            await delivery.requeue()
            return
        self._hand.take_slot()
        carried = False
        self._handling += 1
        self._idle.clear()
        try:
            # Paused before the ack, since the ack is what brings the next doorbell.
            await self._settle()
            claim = await self._claim(doorbell, delivery)
            if claim is not None:
                self._crash.here("W2")
                self._carry(claim)
                carried = True
                await delivery.ack()
        finally:
            self._handling -= 1
            if not self._handling:
                self._idle.set()
            if not carried:
                self._hand.free_slot()

    async def _claim(self, doorbell: messages_pb2.Doorbell, delivery: Delivery) -> Claim | None:
        """The job; None where there is none to be had, and the delivery is ended."""
        claim_id = self._ids.token()  # kept over tries: the same claim, whatever got lost
        failures = 0
        while True:
            try:
                claim = await self._claims.claim(doorbell.job_id, claim_id)
                if failures:
                    self._renew_soon()
                return claim  # noqa: TRY300 - there is no else to a loop of tries
            except (NotFoundError, FailedPreconditionError) as error:
                log.debug("doorbell.forgotten", job_id=doorbell.job_id, reason=error.reason)
                await delivery.ack()
                return None
            except InvalidArgumentError as error:
                log.warning("doorbell.refused", job_id=doorbell.job_id, reason=error.reason)
                await delivery.reject()
                return None
            except ContentshopError as error:
                failures += 1
                log.info(
                    "doorbell.held",
                    job_id=doorbell.job_id,
                    failures=failures,
                    error=type(error).__name__,
                )
            await self._rest(self._backoff.wait(failures, self._ids))
            if self._closing.is_set() or self.draining:
                await delivery.requeue()
                return None

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()


def _decode(body: bytes) -> messages_pb2.Doorbell | None:
    """The doorbell, or None where it is none that this version knows."""
    doorbell = messages_pb2.Doorbell()
    try:
        doorbell.ParseFromString(body)
    except DecodeError:
        return None
    known = doorbell.schema_version == SCHEMA_VERSION and doorbell.job_id >= 1
    return doorbell if known else None
