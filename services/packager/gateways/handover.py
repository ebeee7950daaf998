"""From the event loop to a thread: the chunks of several sources, a few read ahead."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Iterable, Iterator
from contextlib import suppress

from libs.common.errors import UnavailableError

ROOM = 4  # chunks read ahead: 2 MiB, which hides the store's latency


class Handover:
    """One task fills it, one thread empties it; each waits for the other.

    The thread reads source after source; a source's error is raised where its next chunk would
    have been. After `close` the thread gets UnavailableError instead of waiting for ever.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._filled = threading.Condition()
        self._items: deque[bytes | Exception | None] = deque()
        self._closed = False

    async def fill(self, sources: Iterable[AsyncIterable[bytes]]) -> None:
        """Reads all sources in order. Never raises their errors: the thread does."""
        try:
            for source in sources:
                async for chunk in source:
                    await self._put(chunk)
                await self._put(None)
        except Exception as error:  # noqa: BLE001 - raised in the thread, whatever it is
            await self._put(error)

    def source(self) -> Iterator[bytes]:
        """For the thread: the chunks of the next source."""
        while (item := self._take()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        """Nothing more will come."""
        with self._filled:
            self._closed = True
            self._filled.notify()

    async def _put(self, item: bytes | Exception | None) -> None:
        await self._room.wait()
        with self._filled:
            self._items.append(item)
            if len(self._items) >= ROOM:
                self._room.clear()
            self._filled.notify()

    def _take(self) -> bytes | Exception | None:
        with self._filled:
            while not self._items:
                if self._closed:
                    raise UnavailableError("the reading was broken off")
                self._filled.wait()
            item = self._items.popleft()
            roomy = len(self._items) == ROOM - 1
        if roomy:
            with suppress(RuntimeError):  # the loop is gone, and with it who would go on
                self._loop.call_soon_threadsafe(self._room.set)
        return item
