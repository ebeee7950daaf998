"""From BROKER_URL to a broker."""

from __future__ import annotations

from urllib.parse import urlsplit

from libs.common.broker import Broker
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import Clock
from libs.common.crash import CrashPoints
from libs.common.errors import FailedPreconditionError, InvalidArgumentError
from libs.common.ids import Ids


def open_broker(
    url: str,
    *,
    name: str,
    clock: Clock,
    ids: Ids,
    memory: MemoryBroker | None = None,
    crash: CrashPoints | None = None,
) -> Broker:
    """A broker for the URL, not yet started.

    Args:
        url: `amqp://…`, `amqps://…` or `memory://`.
        name: of this process, shown by the broker's tools.
        clock: for waits.
        ids: for jitter and message ids.
        memory: the one broker of the process, which `contentshop up` hands to its services.
        crash: E5 is behind each publish.

    Raises:
        FailedPreconditionError: `memory://` where no MemoryBroker is handed in.
        InvalidArgumentError: any other scheme, or no host.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        if memory is None:
            raise FailedPreconditionError(
                "memory:// exists only inside `contentshop up`; services that run on their own "
                "need amqp:// or amqps://",
                reason="MEMORY_BROKER_OUTSIDE_UP",
            )
        return memory
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
        raise InvalidArgumentError(
            "the broker URL must be amqp://host…, amqps://host… or memory://",
            reason="INVALID_BROKER_URL",
        )
    from libs.common.broker_amqp import AmqpBroker  # noqa: PLC0415 - aio-pika loads only here

    return AmqpBroker(url, name=name, clock=clock, ids=ids, crash=crash)
