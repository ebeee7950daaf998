"""An event loop without time of its own, and nodes on it that can die, and stand still.

The clock stands while anything can run, and leaps to the next timer when nothing can. What would
go to a thread runs at once. So one seed gives one history, and a minute takes no time.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from asyncio import events
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any

BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)


class NothingWillHappenError(AssertionError):
    """Everybody waits, and for no timer."""


class Node:
    """A process: its tasks, whether it runs, and what waits for it to go on.

    Attributes:
        name: for people.
        up: whether it answers.
        standing: stopped, as by SIGSTOP; nothing of it runs, and time passes it by.
        on_crash: told when it has died.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = False
        self.standing = False
        self.on_crash: list[Callable[[], None]] = []
        self._parked: list[events.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str = "") -> asyncio.Task[Any]:
        """Runs work as a part of this process."""
        context = Context()
        context.run(NODE.set, self)
        loop = asyncio.get_running_loop()
        return loop.create_task(work, name=name or self.name, context=context)

    def born(self, task: asyncio.Task[Any]) -> None:
        """A task of its own has begun; for the loop."""
        if len(self._tasks) > 200:  # noqa: PLR2004 - now and then
            self._tasks = [one for one in self._tasks if not one.done()]
        self._tasks.append(task)

    def park(self, handle: events.Handle) -> None:
        """To be run when it goes on; for the loop."""
        self._parked.append(handle)

    def stand_still(self) -> None:
        """SIGSTOP."""
        self.standing = True

    def go_on(self) -> None:
        """SIGCONT: all that came due meanwhile runs now."""
        self.standing = False
        parked, self._parked = self._parked, []
        loop = asyncio.get_running_loop()
        for handle in parked:
            if not handle.cancelled():
                loop.call_soon(handle._run, context=Context())

    async def crash(self) -> None:
        """SIGKILL: nothing of it awaits anything again, and its memory is gone."""
        self.up = False
        self.go_on()
        while alive := [task for task in self._tasks if not task.done()]:
            # Again and again: no clean-up that awaits may run in a process that is dead.
            for task in alive:
                task.cancel()
            await asyncio.sleep(0)
        self._tasks = []
        for tell in self.on_crash:
            tell()
        self.on_crash = []


NODE: ContextVar[Node | None] = ContextVar("NODE", default=None)


class _Handle(events.Handle):
    """Runs unless its process stands still."""

    __slots__ = ()

    def _run(self) -> None:
        node = self._context.get(NODE)  # type: ignore[attr-defined]
        if node is not None and node.standing:
            node.park(self)
        else:
            super()._run()


class _TimerHandle(events.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        node = self._context.get(NODE)  # type: ignore[attr-defined]
        if node is not None and node.standing:
            node.park(self)
        else:
            super()._run()


class _NoFiles(selectors.BaseSelector):
    """Nothing is ever ready: there are no sockets. To wait is to move the clock."""

    def __init__(self) -> None:
        self.loop: VirtualLoop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise NothingWillHappenError("everybody waits, and for no timer")
        if timeout > 0:
            self.loop.leap(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        files = _NoFiles()
        self._seconds = 0.0
        super().__init__(files)
        files.loop = self
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._seconds

    def leap(self, seconds: float) -> None:
        """Nothing can run for so long."""
        self._seconds += seconds + 1e-6  # rounding must not leave the timer a hair away

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> events.Handle:
        handle = _Handle(callback, args, self, context or copy_context())
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """At a time of this loop."""
        timer = _TimerHandle(when, callback, args, self, context or copy_context())
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Here and now."""
        del executor
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - goes to those who wait
            future.set_exception(error)
        return future


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Any, *, context: Context | None = None, **rest: Any
) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, context=context, **rest)
    node = context.get(NODE) if context is not None else NODE.get()
    if node is not None:
        node.born(task)
    return task


class LoopClock:
    """The services' clock: the loop's."""

    def now(self) -> datetime:
        """The wall time."""
        return BEGIN + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)
