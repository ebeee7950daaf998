"""Listening for commands: jobs to stop at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

import structlog

from libs.common.backoff import Backoff
from libs.common.clock import Clock
from libs.common.errors import ContentshopError
from libs.common.ids import Ids
from libs.common.lifecycle import TaskOwner
from services.worker.gateways.enqueue import StopCommand
from services.worker.inhand import JobsInHand, Stop

log = structlog.get_logger()

SILENCE_SECONDS = 45.0  # enqueue says something each 15 s


class Commands(Protocol):
    """Where commands come from."""

    def watch(self) -> AsyncGenerator[StopCommand | None, None]:
        """Commands; None for a heartbeat."""
        ...


class CommandWatcher:
    """Holds a stream of commands open, and opens it again whenever it ends.

    Args:
        commands: the stream.
        hand: the jobs to stop.
        on_connect: told with the first word of each stream; what was said before is lost, so a
            renewal should follow.
        clock: for waits.
        ids: for jitter.
    """

    def __init__(
        self,
        commands: Commands,
        hand: JobsInHand,
        *,
        on_connect: Callable[[], None],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._commands = commands
        self._hand = hand
        self._on_connect = on_connect
        self._clock = clock
        self._ids = ids
        self._backoff = Backoff(first_seconds=0.2, max_seconds=5.0)
        self._failures = 0
        self._owner = TaskOwner()

    async def start(self) -> None:
        """Listens in the background."""
        self._owner.spawn(self._run(), name="commands")

    async def stop(self) -> None:
        """Ends."""
        await self._owner.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (ContentshopError, TimeoutError) as error:
                log.debug("commands.ended", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - a worker without ears must not go on so
                log.warning("commands.fault", error=type(error).__name__)
            self._failures += 1
            await self._clock.sleep(self._backoff.wait(self._failures, self._ids))

    async def _listen(self) -> None:
        connected = False
        # The deadline is moved on with each word: a stream that died silently is found by it.
        async with asyncio.timeout(SILENCE_SECONDS) as deadline:
            async with aclosing(self._commands.watch()) as words:
                async for word in words:
                    deadline.reschedule(asyncio.get_running_loop().time() + SILENCE_SECONDS)
                    if not connected:
                        connected, self._failures = True, 0
                        self._on_connect()
                    if word is not None:
                        self._stop_job(word)

    def _stop_job(self, command: StopCommand) -> None:
        if self._hand.stop(command.job_id, command.fence, Stop.COMMAND):
            log.info("command.stop", job_id=command.job_id, fence=command.fence)
