"""Every task has an owner, a deadline and an end; every component starts and stops in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from libs.common.backoff import Backoff
from libs.common.ids import Ids
from libs.common.logs import frames

log = structlog.get_logger()


class Component(Protocol):
    """Something with a beginning and an end. `stop` is called once, also after a failed start."""

    async def start(self) -> None:
        """Begin; background work may go on after it returns."""
        ...

    async def stop(self) -> None:
        """End; nothing of it runs when it returns."""
        ...


class _Closable(Protocol):
    async def close(self) -> None: ...


class Owned:
    """Makes a component of something that has `close`, and perhaps `start`."""

    def __init__(self, thing: _Closable) -> None:
        self._thing = thing

    async def start(self) -> None:
        """Starts it, where it has a start."""
        start = getattr(self._thing, "start", None)
        if start is not None:
            await start()

    async def stop(self) -> None:
        """Closes it."""
        await self._thing.close()


class TaskOwner:
    """Owns background tasks: faults are logged, and none outlives `close`."""

    def __init__(self, *, cancel_again_seconds: float = 5.0) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancel_again_seconds = cancel_again_seconds

    def spawn(
        self, work: Coroutine[Any, Any, Any], *, name: str, awaited: bool = False
    ) -> asyncio.Task[Any]:
        """Starts work as a task of this owner; `awaited`: the caller sees its fault itself."""
        task = asyncio.create_task(work, name=name)  # noqa: TID251 - the one home of tasks
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not awaited:
            task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(
                "task.failed",
                task=task.get_name(),
                error=type(error).__name__,
                exception=frames(error),
            )

    async def close(self) -> None:
        """Cancels what still runs and waits for its end.

        A library may lose a cancellation (`asyncio.wait_for` of Python 3.11 does, when its answer
        comes in the same turn): who has not ended after a while is told again.
        """
        pending = set(self._tasks)
        while pending:
            for task in pending:
                task.cancel()
            done, pending = await asyncio.wait(pending, timeout=self._cancel_again_seconds)
            for task in done:
                if not task.cancelled():
                    task.exception()  # seen: who awaits it is going too
            for task in pending:
                log.warning("task.not_ending", task=task.get_name())


class Duty:
    """A job of the house, done again and again: when woken, and at least every floor seconds.

    `work` returns whether there may be more to do at once. A failing round is logged and tried
    again after a back-off; the duty itself never ends before `stop`.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[bool]],
        *,
        floor_seconds: float,
        ids: Ids,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self._work = work
        self._floor = floor_seconds
        self._ids = ids
        self._backoff = backoff or Backoff(first_seconds=0.2, max_seconds=5.0)
        self._wake = asyncio.Event()
        self._owner = TaskOwner()
        self.failures = 0

    def wake(self) -> None:
        """Do a round soon; cheap, may be called from anywhere on the loop."""
        self._wake.set()

    async def once(self) -> bool:
        """One round, by hand; whether there may be more to do at once. For the simulation."""
        return await self._work()

    async def start(self) -> None:
        """Begins with a round at once."""
        self._wake.set()
        self._owner.spawn(self._run(), name=f"duty.{self.name}")

    async def stop(self) -> None:
        """Ends in the middle of a round if need be: rounds are transactions."""
        await self._owner.close()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._floor):
                    await self._wake.wait()
            self._wake.clear()
            try:
                more = await self._work()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - outlives any one fault
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                    raise  # stop() asked; a cancellation nobody asked for is a fault like others
                self.failures += 1
                expected = self.failures > 1  # the first says it in full, the rest in a line
                log.warning(
                    "duty.failed",
                    duty=self.name,
                    failures=self.failures,
                    error=type(error).__name__,
                    **({} if expected else {"exception": frames(error)}),
                )
                await asyncio.sleep(self._backoff.wait(self.failures, self._ids))
                self._wake.set()
                continue
            self.failures = 0
            if more:
                self._wake.set()


class Components:
    """Components as one: started in order, stopped in reverse, whatever fails on the way."""

    def __init__(self, components: Sequence[Component]) -> None:
        self._components = list(components)
        self._started: list[Component] = []

    async def start(self) -> None:
        """Starts all; if one fails, those before it are stopped and the fault is raised."""
        for component in self._components:
            self._started.append(component)
            try:
                await component.start()
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        """Stops in reverse order; a failing stop is logged and does not keep the others."""
        while self._started:
            component = self._started.pop()
            try:
                await component.stop()
            except Exception as error:  # noqa: BLE001 - the others must still be stopped
                log.warning(
                    "component.stop_failed",
                    component=type(component).__name__,
                    error=type(error).__name__,
                    exception=frames(error),
                )


async def run_until_signal(components: Component) -> None:
    """Runs until SIGTERM or SIGINT, then stops gracefully; a second signal ends at once."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            raise SystemExit(1)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await components.start()
    log.info("service.ready")
    try:
        await stopping.wait()
    finally:
        log.info("service.stopping")
        await components.stop()
        log.info("service.stopped")
