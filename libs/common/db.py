"""One database per service, SQLite or PostgreSQL, behind transactions that say for whom they act.

PostgreSQL: two pools with two roles. `transaction(team, …)` uses the application role, which sees
only rows of the teams it names (row-level security); `duty()` uses the duty role of background
work and worker calls. Neither owns a table. SQLite: one writer connection with BEGIN IMMEDIATE,
and read-only connections beside it.

Store functions take a `Tx` and never commit. Nothing may await the network inside a transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult, Dialect, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from libs.common.clock import Clock
from libs.common.errors import AbortedError, ResourceExhaustedError, UnavailableError
from libs.common.homes import guard
from libs.common.lifecycle import TaskOwner

log = structlog.get_logger()

T = TypeVar("T")

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND = timedelta(microseconds=1)
_RETRYABLE_STATES = frozenset({"40001", "40P01", "55P03"})  # serialization, deadlock, lock timeout
_DISK_FULL = "53100"
TEAMS_SETTING = "contentshop.teams"
PING_AFTER_SECONDS = 5.0


class Instant(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime: timestamptz on PostgreSQL, whole microseconds on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """The column type of the dialect."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.BigInteger())
        return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """To the database."""
        if value is None or dialect.name != "sqlite":
            return value
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None or dialect.name != "sqlite":
            return value  # type: ignore[no-any-return]  # psycopg gives aware datetimes
        return _EPOCH + timedelta(microseconds=value)


Json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
"""A JSON column: jsonb on PostgreSQL."""

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""An int64 id: bigint on PostgreSQL; SQLite's AUTOINCREMENT wants INTEGER."""


def id_column() -> sa.Column[int]:
    """A server-made id, never used twice: identity on PostgreSQL, AUTOINCREMENT on SQLite.

    The table says `sqlite_autoincrement=True`. An identity needs no grant on a sequence.
    """
    return sa.Column("id", Id, sa.Identity(always=True), primary_key=True, autoincrement=True)


class Tx:
    """One open transaction: statements, the time, and what is to follow its commit."""

    def __init__(self, connection: AsyncConnection, clock: Clock, tasks: TaskOwner) -> None:
        self._connection = connection
        self._clock = clock
        self._tasks = tasks
        self.on_postgres = connection.dialect.name == "postgresql"
        self._after_commit: list[Callable[[], None]] = []

    async def execute(self, statement: Any, parameters: Any = None) -> CursorResult[Any]:
        """Runs one statement; database faults become typed errors, constraint ones pass."""
        work = self._connection.execute(statement, parameters)
        result: CursorResult[Any] = await (work if self.on_postgres else self._whole(work))
        return result

    async def begin(self) -> None:
        """Begins at once, with the write lock on SQLite's writer; for Database alone."""
        await self._whole(self._connection.begin())

    async def _whole(self, work: Awaitable[T]) -> T:
        """Awaits work to its end, also when we are canceled; then the cancellation goes on.

        SQLite's statements run in a thread that no cancellation reaches. A connection given up in
        the middle of one would keep the write lock, and with it the whole house.
        """

        async def run() -> T:
            return await work

        task = self._tasks.spawn(run(), name="db.statement", awaited=True)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # seen: the cancellation is what the caller hears of
            raise

    async def scalar(self, statement: Any) -> Any:
        """The first column of the first row, or None."""
        return (await self.execute(statement)).scalar()

    def insert(self, table: sa.Table) -> Any:
        """An INSERT of the dialect, which knows on_conflict_do_nothing and …_do_update."""
        return postgresql.insert(table) if self.on_postgres else sqlite.insert(table)

    def now(self) -> sa.ColumnElement[datetime]:
        """The time: the database's own clock on PostgreSQL, the injected clock on SQLite."""
        if self.on_postgres:
            return sa.func.clock_timestamp(type_=Instant())
        return sa.literal(self._clock.now(), Instant())

    def after(self, seconds: float) -> sa.ColumnElement[datetime]:
        """So many seconds from now (negative: ago), by the same clock."""
        if self.on_postgres:
            span = sa.literal(timedelta(seconds=seconds), sa.Interval())
            return sa.type_coerce(sa.func.clock_timestamp() + span, Instant())
        return sa.literal(self._clock.now() + timedelta(seconds=seconds), Instant())

    def ago(self, seconds: float) -> sa.ScalarSelect[datetime]:
        """So many seconds ago, read once per statement.

        PostgreSQL reads its clock anew for each row, and then cannot look into an index by it:
        what compares an indexed column with a time long past takes this.
        """
        return sa.select(self.after(-seconds)).scalar_subquery()

    def on_commit(self, hook: Callable[[], None]) -> None:
        """Calls hook once the transaction is committed; a hint only, lost with the process."""
        self._after_commit.append(hook)

    def committed(self) -> None:
        """Runs the hooks; for Database alone."""
        for hook in self._after_commit:
            hook()


class Database:
    """Engines and transactions of one service.

    Args:
        url: SQLAlchemy URL of the application role (PostgreSQL) or of the file (SQLite).
        duty_url: URL of the duty role; not for SQLite.
        clock: gives the time on SQLite.
        pool_size: connections of each role at most.
        pool_wait_seconds: how long a transaction waits for a connection before UNAVAILABLE.
        guarded: refuses a PostgreSQL database that was restored and not settled since.
        sqlite_connect: opens a driver's connection, in place of one with a thread of its own: the
            simulation's runs on the loop, so that a seed says all.
    """

    def __init__(
        self,
        url: str,
        *,
        duty_url: str = "",
        clock: Clock,
        pool_size: int = 10,
        pool_wait_seconds: float = 2.0,
        guarded: bool = False,
        sqlite_connect: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self._clock = clock
        self._commits = TaskOwner()
        self.on_postgres = make_url(url).get_backend_name() == "postgresql"
        if self.on_postgres:
            self._writer = _postgres_engine(url, pool_size, pool_wait_seconds)
            self._duty = _postgres_engine(duty_url or url, pool_size, pool_wait_seconds)
            self._reader = self._writer
            if guarded:
                for engine in (self._writer, self._duty):
                    guard(engine.sync_engine)
            self._still = self._writer.execution_options(isolation_level="REPEATABLE READ")
            self._still_duty = self._duty.execution_options(isolation_level="REPEATABLE READ")
        else:
            self._writer = _sqlite_engine(url, sqlite_connect, writer=True)
            self._duty = self._writer
            self._reader = _sqlite_engine(url, sqlite_connect, writer=False)
            self._still = self._still_duty = self._reader  # there each transaction is a snapshot

    async def start(self) -> None:
        """Opens nothing yet: connections come with the first transactions."""

    async def stop(self) -> None:
        """Waits for commits under way, then closes all connections."""
        await self._commits.close()
        for engine in {self._writer, self._duty, self._reader}:
            await engine.dispose()

    async def ping(self) -> None:
        """Raises UnavailableError when the database does not answer."""
        async with self.read_all() as tx:
            await tx.execute(sa.text("SELECT 1"))

    @asynccontextmanager
    async def transaction(self, *teams: str) -> AsyncIterator[Tx]:
        """A writing transaction for these teams; commits at the end, rolls back on any error.

        Raises:
            UnavailableError: no connection in time, or it broke. After a broken COMMIT the result
                is unknown: callers repeat idempotently.
            AbortedError: a deadlock or lock timeout.
        """
        async with self._open(self._writer, teams) as tx:
            yield tx

    @asynccontextmanager
    async def duty(self) -> AsyncIterator[Tx]:
        """A writing transaction of background work or of a worker's call, for all teams."""
        async with self._open(self._duty, None) as tx:
            yield tx

    @asynccontextmanager
    async def read(self, *teams: str) -> AsyncIterator[Tx]:
        """A transaction that only reads, for these teams."""
        async with self._open(self._reader, teams) as tx:
            yield tx

    @asynccontextmanager
    async def read_all(self) -> AsyncIterator[Tx]:
        """A transaction that only reads, of background work, for all teams."""
        engine = self._duty if self.on_postgres else self._reader
        async with self._open(engine, None) as tx:
            yield tx

    @asynccontextmanager
    async def snapshot(self, *teams: str) -> AsyncIterator[Tx]:
        """As read, and all statements see the same moment."""
        async with self._open(self._still, teams) as tx:
            yield tx

    @asynccontextmanager
    async def snapshot_all(self) -> AsyncIterator[Tx]:
        """As read_all, and all statements see the same moment."""
        async with self._open(self._still_duty, None) as tx:
            yield tx

    @asynccontextmanager
    async def _open(self, engine: AsyncEngine, teams: Sequence[str] | None) -> AsyncIterator[Tx]:
        with _typed_faults():
            async with engine.connect() as connection:
                tx = Tx(connection, self._clock, self._commits)
                if not tx.on_postgres:
                    await tx.begin()
                elif teams is not None:
                    # Set for this transaction alone; the policies read it.
                    await connection.execute(_SET_TEAMS, {"teams": ",".join(teams)})
                yield tx
                # A caller that is canceled now must not leave it open whether we committed:
                # the commit and its hooks run to their end in a task of their own.
                await asyncio.shield(
                    self._commits.spawn(
                        self._commit(connection, tx), name="db.commit", awaited=True
                    )
                )

    async def _commit(self, connection: AsyncConnection, tx: Tx) -> None:
        await connection.commit()
        tx.committed()


_SET_TEAMS = sa.text(f"SELECT set_config('{TEAMS_SETTING}', :teams, true)")


@contextmanager
def _typed_faults() -> Iterator[None]:
    """Turns faults of connections and locks into typed errors; constraint errors pass."""
    try:
        yield
    except exc.IntegrityError:
        raise
    except exc.TimeoutError:
        raise UnavailableError("the database is busy", reason="DATABASE_BUSY") from None
    except exc.DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        log.warning("db.fault", error=type(error.orig).__name__, sqlstate=state)
        if state == _DISK_FULL or getattr(error.orig, "sqlite_errorname", "") == "SQLITE_FULL":
            raise ResourceExhaustedError(
                "the database has no room",
                reason="STORAGE_FULL",
                retry_after_seconds=30.0,
                quota_subject="database storage",
            ) from error
        if state in _RETRYABLE_STATES:
            raise AbortedError(
                "the transaction met another one", retry_after_seconds=0.1
            ) from error
        if error.connection_invalidated or isinstance(
            error, (exc.OperationalError, exc.InterfaceError)
        ):
            raise UnavailableError("the database is away", reason="DATABASE_UNAVAILABLE") from error
        raise


def _ping_when_idle(engine: AsyncEngine) -> None:
    """Checks a connection before use when it was idle for a while.

    A ping at every checkout would be a sixth of all round trips; one that breaks within
    PING_AFTER_SECONDS is UNAVAILABLE once, and empties the pool.
    """

    def on_checkin(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    def on_checkout(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get("idle_since")
        if since is None or time.monotonic() - since < PING_AFTER_SECONDS:
            return
        try:
            engine.sync_engine.dialect.do_ping(connection)
        except Exception as error:
            raise exc.DisconnectionError from error

    event.listen(engine.sync_engine, "checkin", on_checkin)
    event.listen(engine.sync_engine, "checkout", on_checkout)


def _postgres_engine(url: str, pool_size: int, pool_wait_seconds: float) -> AsyncEngine:
    timeouts = (
        "-c statement_timeout=10000 -c lock_timeout=5000 "
        "-c idle_in_transaction_session_timeout=15000 -c timezone=UTC"
    )
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_wait_seconds,
        pool_recycle=1800,
        hide_parameters=True,  # prompts and file names stay out of tracebacks, and so of logs
        connect_args={"connect_timeout": 5, "options": timeouts, "tcp_user_timeout": 5000},
    )
    _ping_when_idle(engine)
    return engine


def _sqlite_engine(
    url: str, connect: Callable[[], Awaitable[Any]] | None, *, writer: bool
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        **({"async_creator": connect} if connect else {}),
        pool_size=1 if writer else 4,
        max_overflow=0,
        hide_parameters=True,
        pool_timeout=10.0,  # one writer: waiting in line is normal here
    )

    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a committed job survives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA busy_timeout=5000")
        if not writer:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)
    return engine
