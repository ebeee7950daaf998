"""Group commit: what arrives while a transaction runs goes into the next one, together.

Under load one commit carries many; alone, an item waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from libs.common.errors import ContentshopError, UnavailableError
from libs.common.lifecycle import TaskOwner

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Runs submitted items in groups, one group at a time.

    Args:
        run: the items of a group in one transaction → for each its result or its own error. When
            it raises, nothing of the group was committed, or nothing is known of it.
        max_group: items in one transaction at most.
        max_weight: and so much weight of them together; a single item may weigh more.
        weight: of an item; 1 each by default.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | ContentshopError]]],
        *,
        max_group: int = 64,
        max_weight: int = 1_000_000,
        weight: Callable[[Item], int] = lambda _item: 1,
    ) -> None:
        self._run = run
        self._max = max_group
        self._max_weight = max_weight
        self._weight = weight
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._owner = TaskOwner()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopped = False

    async def submit(self, item: Item) -> Result:
        """The item's result once its group is committed; raises the item's or the group's error."""
        if self._stopped:
            raise UnavailableError("the server is going away", reason="GOING_AWAY")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._idle.is_set():
            self._idle.clear()
            self._owner.spawn(self._drain(), name="group_commit")
        return await future

    async def start(self) -> None:
        """Nothing runs until something is submitted."""

    async def stop(self) -> None:
        """Refuses what comes, and lets what is waiting end."""
        self._stopped = True
        await self._idle.wait()
        await self._owner.close()

    async def _drain(self) -> None:
        try:
            while self._waiting:
                size = self._next_size()
                group, self._waiting = self._waiting[:size], self._waiting[size:]
                await self._settle(group)
        finally:
            self._idle.set()

    def _next_size(self) -> int:
        """How many of the waiting go together next: at least one."""
        room = self._max_weight
        for size, (item, _) in enumerate(self._waiting[: self._max]):
            room -= self._weight(item)
            if room < 0:
                return max(1, size)
        return min(self._max, len(self._waiting))

    async def _settle(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - goes to those who wait
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(group, results, strict=True):
            if future.done():
                continue  # its caller went away; what it asked for is done all the same
            if isinstance(result, ContentshopError):
                future.set_exception(result)
            else:
                future.set_result(result)
