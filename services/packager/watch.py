"""Watching archives: one read for all watchers of this process, no connection held between.

The truth is the row. A hint in this process wakes the read at once; a zip that another packager
builds is seen by the sweep, which runs only while somebody watches.
See docs/decisions/0010-watching-archives.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from libs.common.db import Database
from libs.common.errors import NotFoundError, UnavailableError
from libs.common.ids import Ids
from libs.common.lifecycle import Duty
from services.packager.domain import Archive
from services.packager.store import archives

READ_PAGE = 500  # archives in one query


@dataclass(slots=True, eq=False)
class _Topic:
    """An archive that is watched here: its newest reading, and who waits for a newer one."""

    newest: Archive
    watchers: int = 0
    gone: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Wakes all who wait now; who comes later waits for the next."""
        self.changed.set()
        self.changed = asyncio.Event()


class WatchHub:
    """All watchers of this process.

    Args:
        db: read once per round, for all watchers.
        heartbeat_seconds: silence before a heartbeat.
        sweep_seconds: between rounds while somebody watches and no hint comes.
        ids: jitter.
    """

    def __init__(
        self, db: Database, *, heartbeat_seconds: float, sweep_seconds: float, ids: Ids
    ) -> None:
        self._db = db
        self._heartbeat = heartbeat_seconds
        self._topics: dict[int, _Topic] = {}
        self._closing = False
        self._reading = Duty("watch", self._read, floor_seconds=sweep_seconds, ids=ids)

    async def start(self) -> None:
        """Begins to read for watchers."""
        await self._reading.start()

    async def stop(self) -> None:
        """Sends the watchers away, and ends."""
        self.send_away()
        await self._reading.stop()

    def wake(self) -> None:
        """An archive changed in this process; perhaps it is watched."""
        if self._topics:
            self._reading.wake()

    def send_away(self) -> None:
        """Ends every watch with UNAVAILABLE: another packager takes them."""
        self._closing = True
        for topic in self._topics.values():
            topic.tell()

    @property
    def watchers(self) -> int:
        """How many watch here."""
        return sum(topic.watchers for topic in self._topics.values())

    async def watch(self, archive: Archive) -> AsyncIterator[Archive | None]:
        """The archive as given, then each newer reading until it is final; None: still there.

        A slow watcher gets the newest reading only.

        Raises:
            NotFoundError: it was removed.
            UnavailableError: the server is going away; watch again.
        """
        yield archive
        if archive.final:
            return
        with self._subscribed(archive) as topic:
            seen = archive
            self._reading.wake()  # it may have changed between the reading and here
            while not seen.final:
                if topic.newest.moment > seen.moment:
                    seen = topic.newest
                    yield seen
                elif not await self._waited(topic):
                    yield None

    async def _waited(self, topic: _Topic) -> bool:
        """Whether something happened before the heartbeat is due."""
        if self._closing:
            raise UnavailableError("the server is going away; watch again", reason="GOING_AWAY")
        if topic.gone:
            raise NotFoundError("archive")
        try:
            async with asyncio.timeout(self._heartbeat):
                await topic.changed.wait()
        except TimeoutError:
            return False
        return True

    @contextmanager
    def _subscribed(self, archive: Archive) -> Iterator[_Topic]:
        topic = self._topics.setdefault(archive.id, _Topic(archive))
        topic.watchers += 1
        try:
            yield topic
        finally:
            topic.watchers -= 1
            if not topic.watchers and self._topics.get(archive.id) is topic:
                del self._topics[archive.id]

    async def _read(self) -> bool:
        watched = list(self._topics)
        for start in range(0, len(watched), READ_PAGE):
            page = watched[start : start + READ_PAGE]
            async with self._db.read_all() as tx:
                found = {archive.id: archive for archive in await archives.find_many(tx, page)}
            for archive_id in page:
                self._take_in(archive_id, found.get(archive_id))
        return False

    def _take_in(self, archive_id: int, reading: Archive | None) -> None:
        topic = self._topics.get(archive_id)
        if topic is None:
            return
        if reading is None:
            topic.gone = True
            # Whoever watches again must look for the archive anew.
            del self._topics[archive_id]
            topic.tell()
        elif reading.moment > topic.newest.moment:
            topic.newest = reading
            topic.tell()
