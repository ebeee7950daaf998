"""RabbitMQ behind the broker seam: two connections, confirms, quorum queues."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.amqp_link import AmqpLink, AmqpParameters
from libs.common.amqp_publisher import AmqpPublisher
from libs.common.amqp_subscription import AmqpSubscription
from libs.common.amqp_topology import Topology
from libs.common.broker import TOPOLOGY, Handler, Message, Queue
from libs.common.clock import Clock
from libs.common.crash import CrashPoints
from libs.common.errors import InternalError
from libs.common.ids import Ids
from libs.common.lifecycle import TaskOwner


class AmqpBroker:
    """Connects in the background and stays connected; see the Protocol `Broker`.

    A broker that is away is no error at start: `connected` is False and publish raises
    UnavailableError until it is there. A topology that is declared differently at the broker
    keeps `connected` False, with `amqp.topology_mismatch` in the log.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        clock: Clock,
        ids: Ids,
        publish_timeout_seconds: float = 4.0,
        heartbeat_seconds: int = 10,
        watch_seconds: float = 30.0,
        topology: Sequence[Queue] = TOPOLOGY,
        crash: CrashPoints | None = None,
    ) -> None:
        """Makes a broker that is not started.

        Args:
            url: `amqp://` or `amqps://`, with credentials and vhost.
            name: of this process, shown by the broker's tools.
            clock: for waits between tries.
            ids: for jitter and message ids.
            publish_timeout_seconds: for all confirms of one publish call together.
            heartbeat_seconds: a dead broker is found after about 3.5 of these.
            watch_seconds: how often a silent consumer is checked for waiting messages.
            topology: what is declared after each connect.
            crash: E5 is behind each publish.
        """
        self._parameters = AmqpParameters(
            url=url,
            name=name,
            clock=clock,
            ids=ids,
            heartbeat_seconds=heartbeat_seconds,
        )
        self._watch_seconds = watch_seconds
        self._topology = Topology(topology)
        self._publisher = AmqpPublisher(
            self._parameters,
            self._topology,
            timeout_seconds=publish_timeout_seconds,
            crash=crash or CrashPoints(""),
        )
        self._consuming = AmqpLink(
            self._parameters, purpose="consume", prepare=self._topology.declare
        )
        self._subscriptions: list[AmqpSubscription] = []
        self._owner = TaskOwner()

    async def start(self) -> None:
        """Begins connecting in the background."""
        self._owner.spawn(self._publisher.link.run(), name="amqp.publish")
        self._owner.spawn(self._consuming.run(), name="amqp.consume")

    async def close(self) -> None:
        """Ends subscriptions, then connections; takes seconds at most, also from a dead broker."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()
        await self._publisher.close()
        await self._owner.close()

    @property
    def connected(self) -> bool:
        """Whether both connections are up with the topology declared."""
        return self._publisher.link.up and self._consuming.up

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """Publishes all in flight together; True for each that was confirmed and routed.

        Raises:
            UnavailableError: no connection, no confirm in time, or the broker blocks publishers
                (an alarm); any of the messages may yet land.
        """
        return await self._publisher.publish(messages)

    async def consume(self, queue: str, handler: Handler, *, prefetch: int) -> AmqpSubscription:
        """Calls handler for each delivery, at most `prefetch` at once; does not wait for a link."""
        if queue not in self._topology.queue_names:
            raise InternalError("no such queue in the topology")
        subscription = AmqpSubscription(
            self._consuming,
            self._parameters,
            self._topology,
            queue=queue,
            handler=handler,
            prefetch=prefetch,
            watch_seconds=self._watch_seconds,
        )
        self._subscriptions = [s for s in self._subscriptions if not s.closed]
        self._subscriptions.append(subscription)
        subscription.start()
        return subscription
