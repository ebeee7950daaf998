"""Idempotency keys (AIP-155): one answer per (team, method, request_id).

A key is kept in the transaction of the create it names, with a hash of the request's body. Only
successes are kept; a replay is answered with the same resource as it is now.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

import sqlalchemy as sa

from libs.common.db import Instant, Tx
from libs.common.errors import AlreadyExistsError
from libs.common.many_rows import InsertRows

Name = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The caller's key of one create, and a hash of what it asked for.

    `request_id` is empty where the caller gave none: then nothing is kept.
    """

    team: str
    method: str
    request_id: str
    body_hash: str

    @property
    def name(self) -> Name:
        """What must be unique."""
        return (self.team, self.method, self.request_id)


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key seen before: what was asked then, and the id of what it made."""

    body_hash: str
    resource_id: int


def check_same(key: RequestKey, kept: KeptKey) -> None:
    """Raises AlreadyExistsError IDEMPOTENCY_KEY_REUSED where the body is another one."""
    if key.body_hash != kept.body_hash:
        raise AlreadyExistsError(
            "the request_id was used with another body", reason="IDEMPOTENCY_KEY_REUSED"
        )


def request_keys_table(metadata: sa.MetaData) -> sa.Table:
    """The kept keys of one service."""
    return sa.Table(
        "idempotency_keys",
        metadata,
        sa.Column("team", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("body_hash", sa.Text, nullable=False),
        sa.Column("resource_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Index("idempotency_keys_created", "created_at"),
    )


async def find(tx: Tx, table: sa.Table, names: Collection[Name]) -> dict[Name, KeptKey]:
    """Those of the names that were seen before."""
    if not names:
        return {}
    name = sa.tuple_(table.c.team, table.c.method, table.c.request_id)
    rows = await tx.execute(sa.select(table).where(name.in_(list(names))))
    return {
        (row.team, row.method, row.request_id): KeptKey(row.body_hash, row.resource_id)
        for row in rows
    }


async def find_same(tx: Tx, table: sa.Table, key: RequestKey) -> KeptKey | None:
    """What the key made before; None for a new key or none. AlreadyExistsError for another body."""
    if not key.request_id:
        return None
    kept = (await find(tx, table, [key.name])).get(key.name)
    if kept is not None:
        check_same(key, kept)
    return kept


async def add(tx: Tx, table: sa.Table, keys: Sequence[tuple[RequestKey, int]]) -> None:
    """Keeps new keys with what they made; the caller holds a lock that keeps others off them."""
    await _adding(table)(tx, [_row(key, resource_id) for key, resource_id in keys])


@cache
def _adding(table: sa.Table) -> InsertRows:
    names = ("team", "method", "request_id", "body_hash", "resource_id")
    return InsertRows(table, names, times=("created_at",))


async def claim(tx: Tx, table: sa.Table, key: RequestKey, resource_id: int) -> bool:
    """Keeps one key; False when another call has kept it meanwhile."""
    row = await tx.execute(
        tx.insert(table)
        .values(created_at=tx.now(), **_row(key, resource_id))
        .on_conflict_do_nothing()
        .returning(table.c.resource_id)
    )
    return row.one_or_none() is not None


async def forget(tx: Tx, table: sa.Table, age_seconds: float, limit: int) -> int:
    """Removes keys, of all teams, that were kept so long ago; how many."""
    name = (table.c.team, table.c.method, table.c.request_id)
    old = (
        sa.select(*name)
        .where(table.c.created_at < tx.ago(age_seconds))
        .order_by(table.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    names = [tuple(row) for row in await tx.execute(old)]
    if names:
        await tx.execute(sa.delete(table).where(sa.tuple_(*name).in_(names)))
    return len(names)


def _row(key: RequestKey, resource_id: int) -> dict[str, object]:
    return {
        "team": key.team,
        "method": key.method,
        "request_id": key.request_id,
        "body_hash": key.body_hash,
        "resource_id": resource_id,
    }
