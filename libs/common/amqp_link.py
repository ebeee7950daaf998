"""One AMQP connection, kept up by one loop: connect, prepare, watch, and again.

aio-pika's robust classes reconnect behind the caller's back, each object for itself. Here one
loop owns the connection, so there is one place to ask whether it is up and one reason it went.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog

from libs.common.backoff import Backoff
from libs.common.clock import Clock
from libs.common.ids import Ids

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection
    from aiormq.abc import AbstractChannel as Underlay

log = structlog.get_logger()
T = TypeVar("T")

CONNECT_SECONDS = 10.0
PREPARE_SECONDS = 20.0  # quorum queues elect their leaders first after a broker's restart
CALL_SECONDS = 5.0
CLOSE_SECONDS = 3.0
RETRY = Backoff(first_seconds=0.2, max_seconds=3.0)
RETRY_REFUSED = Backoff(first_seconds=5.0, max_seconds=30.0)  # a person must mend something


class LinkLostError(Exception):
    """An AMQP call did not come to its end; stays inside the amqp modules."""


class RefusedError(LinkLostError):
    """The broker will say no until a person changes something; the log said what."""


@dataclass(frozen=True, slots=True)
class AmqpParameters:
    """What every part of an AmqpBroker needs to know.

    Attributes:
        url: `amqp://` or `amqps://`, with credentials; never logged.
        name: of this process, shown by the broker's tools.
        heartbeat_seconds: a dead broker is found after about 3.5 of these.
    """

    url: str
    name: str
    clock: Clock
    ids: Ids
    heartbeat_seconds: int


async def amqp_call(call: Awaitable[T], *, seconds: float = CALL_SECONDS) -> T:
    """The call's result; LinkLostError for every other way it can end but our own cancellation.

    The library rejects what is pending on a dying channel with any exception it has at hand, a
    CancelledError that nobody asked for among them. And it loses one that was asked for: in
    `asyncio.wait_for` of Python 3.11, when the answer comes in the same turn of the loop.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(seconds):
            result = await call
    except asyncio.CancelledError:
        if task is not None and task.cancelling() > before:
            raise
        raise LinkLostError("cancelled by the library") from None
    except LinkLostError:
        raise
    except Exception as error:  # the library's boundary: see above
        raise LinkLostError(type(error).__name__) from error
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return result


async def open_channel(
    connection: AbstractConnection, *, confirms: bool = False
) -> tuple[AbstractChannel, Underlay]:
    """A new channel and the library's inner one; keep both for as long as it is in use."""

    async def opened() -> tuple[AbstractChannel, Underlay]:
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize()
        return channel, await channel.get_underlay_channel()

    return await amqp_call(opened())


async def close_quietly(thing: AbstractChannel | AbstractConnection) -> None:
    """Closes a channel or connection that may be dead already."""
    with suppress(LinkLostError):
        await amqp_call(thing.close(), seconds=CLOSE_SECONDS)


async def _close_for_good(connection: AbstractConnection) -> None:
    """Closes a connection, and leaves it closed whatever comes of that.

    One that is not would be closed once more by its finalizer, on whatever thread and loop happen
    to be there when the garbage is collected.
    """
    try:
        await close_quietly(connection)
    finally:
        if not connection.is_closed:
            await connection.close()  # its transport was taken from it: this one only marks it


class AmqpLink:
    """A connection that is up, or being brought up. `run` is the one task that changes it."""

    def __init__(
        self,
        parameters: AmqpParameters,
        *,
        purpose: str,
        prepare: Callable[[AbstractConnection], Awaitable[None]],
    ) -> None:
        """Makes a link that is down.

        Args:
            parameters: of the broker.
            purpose: `publish` or `consume`, for names and logs.
            prepare: sets up a fresh connection; only then is the link up.
        """
        self._parameters = parameters
        self._prepare = prepare
        self._log = log.bind(link=purpose)
        self._name = f"{parameters.name}.{purpose}"
        self._connection: AbstractConnection | None = None
        self._up = asyncio.Event()
        self._lost: asyncio.Future[str] | None = None

    @property
    def up(self) -> bool:
        """Whether it is connected and prepared."""
        return self._up.is_set()

    async def wait_up(self) -> AbstractConnection:
        """The connection, as soon as the link is up."""
        while True:
            await self._up.wait()
            if self._connection is not None:
                return self._connection

    def drop(self, why: str) -> None:
        """Gives the connection up for lost; a new one follows."""
        self._up.clear()
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(why)

    def drop_with(self, closing: asyncio.Future[None], why: str) -> None:
        """Drops the link when this future ends; for what cannot be missed, a channel say."""
        lost = self._lost

        def on_closing(_: asyncio.Future[None]) -> None:
            if lost is not None and lost is self._lost:
                self.drop(why)

        closing.add_done_callback(on_closing)

    async def run(self) -> None:
        """Keeps the link up until cancelled."""
        failures = 0
        while True:
            retry = RETRY
            try:
                why = await self._live()
            except LinkLostError as error:
                failures += 1
                if isinstance(error, RefusedError):
                    retry = RETRY_REFUSED
                if failures & (failures - 1) == 0:  # the 1st, 2nd, 4th …: an outage is not a flood
                    self._log.warning("amqp.connect_failed", failures=failures, error=str(error))
            else:
                failures = 0
                self._log.warning("amqp.link_lost", why=why)
            ids = self._parameters.ids
            await self._parameters.clock.sleep(retry.wait(failures, ids))

    async def _live(self) -> str:
        """One connection from beginning to end; returns why it ended."""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._lost = lost
        connection = await self._connect()
        try:
            inner = connection.transport
            if inner is None:
                raise LinkLostError("closed at once")
            self.drop_with(inner.connection.closing, "connection closed")
            await amqp_call(self._prepare(connection), seconds=PREPARE_SECONDS)
            if not lost.done():
                self._connection = connection
                self._up.set()
                self._log.info("amqp.link_up")
            return await lost
        finally:
            self._up.clear()
            self._connection = None
            await _close_for_good(connection)

    async def _connect(self) -> AbstractConnection:
        # The embedded mode never loads the library.
        from aio_pika import Connection, exceptions  # noqa: PLC0415
        from aio_pika.connection import make_url  # noqa: PLC0415

        url = make_url(
            self._parameters.url, heartbeat=self._parameters.heartbeat_seconds, name=self._name
        )
        connection = Connection(url)
        try:
            # The library's own timeout; ours, a little later, catches what that does not cover.
            await amqp_call(
                connection.connect(timeout=CONNECT_SECONDS), seconds=CONNECT_SECONDS + 1
            )
        except BaseException as error:
            await _close_for_good(connection)
            if not isinstance(error, LinkLostError):
                raise
            refusals = (exceptions.AuthenticationError, exceptions.ProbableAuthenticationError)
            if isinstance(error.__cause__, refusals):
                self._log.error("amqp.credentials_refused")  # noqa: TRY400 - no trace needed
                raise RefusedError("credentials refused") from error
            raise
        return connection
