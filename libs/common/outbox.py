"""What must be published is a row, written with the change that makes it true.

`add` writes rows inside the caller's transaction; `Relay` publishes them with confirms and deletes
them. A crash in between publishes twice, which every reader can bear.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from libs.common.broker import Broker, Message
from libs.common.crash import CrashPoints
from libs.common.db import Database, Instant, Tx, id_column
from libs.common.errors import UnavailableError
from libs.common.many_rows import InsertRows

BATCH = 200
RETAKE_SECONDS = 6.0  # longer than one publish may take


def outbox_table(metadata: sa.MetaData) -> sa.Table:
    """The outbox of one service.

    `taken_until` keeps a second relay off the rows that one is publishing.
    """
    return sa.Table(
        "outbox",
        metadata,
        id_column(),
        sa.Column("routing_key", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("taken_until", Instant),
        sqlite_autoincrement=True,
    )


async def add(tx: Tx, table: sa.Table, messages: Sequence[Message]) -> None:
    """Writes messages to the outbox, to be published in this order once committed."""
    # The application role may insert, and not read, for a row may be of any team.
    rows = [{"routing_key": m.routing_key, "body": m.body} for m in messages]
    await _adding(table)(tx, rows)


@cache
def _adding(table: sa.Table) -> InsertRows:
    return InsertRows(table, ("routing_key", "body"), times=("created_at",))


async def count(tx: Tx, table: sa.Table) -> int:
    """How many messages are not published yet."""
    unsent: int = await tx.scalar(sa.select(sa.func.count()).select_from(table))
    return unsent


class Relay:
    """Publishes the outbox: the work of a Duty that is woken at each commit."""

    def __init__(
        self, db: Database, table: sa.Table, broker: Broker, crash: CrashPoints | None = None
    ) -> None:
        self._db = db
        self._table = table
        self._broker = broker
        self._crash = crash or CrashPoints("")

    async def round(self) -> bool:
        """Publishes one batch; True when there may be more."""
        if not self._broker.connected:
            return False  # the sweep, or the next commit, comes back
        rows = await self._take()
        if not rows:
            return False
        self._crash.here("E4")
        messages = [Message(row.routing_key, bytes(row.body), f"{row.id}") for row in rows]
        confirmed: list[bool] = []
        try:
            confirmed = await self._broker.publish(messages)
            self._crash.here("E6")
        finally:
            sent = [row.id for row, ok in zip(rows, confirmed, strict=False) if ok]
            await self._settle(sent, [row.id for row in rows if row.id not in set(sent)])
        if not all(confirmed):
            raise UnavailableError("some messages were not routed", reason="UNROUTABLE")
        return len(rows) == BATCH

    async def _take(self) -> Sequence[sa.Row[Any]]:
        outbox = self._table
        async with self._db.duty() as tx:
            free = (
                sa.select(outbox.c.id)
                .where(sa.or_(outbox.c.taken_until.is_(None), outbox.c.taken_until < tx.now()))
                .order_by(outbox.c.id)
                .limit(BATCH)
                .with_for_update(skip_locked=True)
            )
            taken = (
                sa.update(outbox)
                .where(outbox.c.id.in_(free.scalar_subquery()))
                .values(taken_until=tx.after(RETAKE_SECONDS))
                .returning(outbox.c.id, outbox.c.routing_key, outbox.c.body)
            )
            rows = (await tx.execute(taken)).all()
        return sorted(rows, key=lambda row: int(row.id))

    async def _settle(self, sent: list[int], unsent: list[int]) -> None:
        outbox = self._table
        async with self._db.duty() as tx:
            if sent:
                await tx.execute(sa.delete(outbox).where(outbox.c.id.in_(sent)))
            if unsent:
                await tx.execute(
                    sa.update(outbox).where(outbox.c.id.in_(unsent)).values(taken_until=None)
                )
