"""SQLite on the loop itself: no threads, so that one seed gives one history.

Each statement lets the other tasks have a turn first, and then runs whole, as it does in
production, where its thread and the writer's lock see to that.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import LRUCache

from libs.common.clock import Clock
from libs.common.db import Database


class _Inline:
    """In place of the queue to aiosqlite's thread: what is put into it runs at once."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        future, function = item
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - goes to those who wait
            if future is not None:
                future.set_exception(error)
        else:
            if future is not None:
                future.set_result(result)


class InlineConnection(aiosqlite.Connection):
    """An aiosqlite connection whose statements run where they are awaited."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._tx: Any = _Inline()

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)  # somebody else's turn
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]

    def __await__(self) -> Generator[Any, None, aiosqlite.Connection]:
        """Opens it; there is no thread to start."""
        return self._connect().__await__()

    async def close(self) -> None:
        """Closes it at once, also in a task that is being cancelled: a thread would go on to."""
        self.stop()


class _Connection(sqlite3.Connection):
    """Closing ends its transaction as well; else that would live on with open cursors."""

    def close(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # closed already
            if self.in_transaction:
                self.rollback()
        super().close()


class SqliteFiles:
    """The connections to one file, as one process holds them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: list[InlineConnection] = []

    async def connect(self) -> InlineConnection:
        """One more."""
        connection = InlineConnection(self._open)
        self._opened.append(connection)
        await connection
        return connection

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, factory=_Connection, cached_statements=512)

    def drop_all(self) -> None:
        """What the kernel does when a process dies: open transactions are gone."""
        for connection in self._opened:
            connection.stop()
        self._opened.clear()


class _Compiled:
    """One dialect, and what it has compiled, for all engines of this process.

    A crash makes new engines; compiling every statement anew would be most of a seed's time.
    """

    dialect: Any = None
    statements: LRUCache[Any, Any] = LRUCache(2000)


def inline_database(url: str, clock: Clock, files: SqliteFiles) -> Database:
    """A service's database, on these connections."""
    database = Database(url, clock=clock, sqlite_connect=files.connect)
    for engine in (database._writer, database._reader):
        _share_compiled(engine)
    return database


def _be_quick(connection: Any, _record: Any) -> None:
    """A crash of the machine is not simulated: what is written is written."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.execute("PRAGMA wal_autocheckpoint=0")  # the file lives for a second
    cursor.close()


def _share_compiled(engine: AsyncEngine) -> None:
    sync = engine.sync_engine
    event.listen(sync, "connect", _be_quick)
    if _Compiled.dialect is None:
        _Compiled.dialect = sync.dialect
    sync.dialect = _Compiled.dialect
    sync.pool._dialect = _Compiled.dialect
    sync._compiled_cache = _Compiled.statements
