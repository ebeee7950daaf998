"""What teams store, in bytes: a row per team, changed in the transactions that change its files.

The lock of a team's storage row is the last one a transaction takes, of several teams' in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.assets import tables

_storage = tables.storage
_reservations = tables.reservations
_files = tables.files


@dataclass(frozen=True, slots=True)
class Storage:
    """A team's row.

    Attributes:
        stored_bytes: of its files that are not deleted.
        max_stored_bytes: None: the service's default.
        calls_per_minute: likewise.
    """

    stored_bytes: int
    max_stored_bytes: int | None
    calls_per_minute: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that says other than the team's files do, both in bytes."""

    team: str
    stored_bytes: int
    real_bytes: int


NOTHING = Storage(0, None, None)


async def find(tx: Tx, team: str) -> Storage:
    """The team's row; NOTHING where it has none."""
    rows = await tx.execute(sa.select(_storage).where(_storage.c.team == team))
    row = rows.one_or_none()
    return NOTHING if row is None else _row(row)


async def lock(tx: Tx, team: str) -> Storage:
    """The team's row, made where there is none; others wait until the transaction ends."""
    return await _put(tx, team, 0, {})


async def grow(tx: Tx, team: str, size_bytes: int) -> None:
    """The team has a file more."""
    await _put(tx, team, size_bytes, {})


async def shrink(tx: Tx, freed: Mapping[str, int]) -> None:
    """The teams have these bytes less; a row that would say less than nothing says nothing."""
    for team, size_bytes in sorted(freed.items()):
        left = _storage.c.stored_bytes - size_bytes
        await tx.execute(
            sa.update(_storage)
            .where(_storage.c.team == team)
            .values(stored_bytes=sa.case((left > 0, left), else_=0))
        )


async def set_limits(tx: Tx, team: str, limits: Mapping[str, int | None]) -> Storage:
    """Sets `max_stored_bytes` and `calls_per_minute`, those of the two that are given."""
    return await _put(tx, team, 0, limits)


async def calls_per_minute(tx: Tx) -> dict[str, int]:
    """The teams, of all, that have a number of their own."""
    rows = await tx.execute(
        sa.select(_storage.c.team, _storage.c.calls_per_minute).where(
            _storage.c.calls_per_minute.is_not(None)
        )
    )
    return {row.team: row.calls_per_minute for row in rows}


async def reserve(tx: Tx, team: str, token: str, size_bytes: int, seconds: float) -> None:
    """Sets bytes aside for so many seconds; the caller has the lock and has seen them free."""
    await tx.execute(
        sa.insert(_reservations).values(
            token=token, team=team, size_bytes=size_bytes, expires_at=tx.after(seconds)
        )
    )


async def release(tx: Tx, team: str, token: str) -> int:
    """Ends a reservation; its bytes, 0 where it had run out."""
    rows = await tx.execute(
        sa.delete(_reservations)
        .where(_reservations.c.token == token, _reservations.c.team == team)
        .returning(
            sa.case((_reservations.c.expires_at > tx.now(), _reservations.c.size_bytes), else_=0)
        )
    )
    return rows.scalar() or 0


async def reserved_bytes(tx: Tx, team: str) -> int:
    """Bytes set aside for uploads under way."""
    total: int = await tx.scalar(
        sa.select(sa.func.coalesce(sa.cast(sa.func.sum(_size), sa.BigInteger), 0)).where(
            _reservations.c.team == team, _reservations.c.expires_at > tx.now()
        )
    )
    return total


async def forget_expired(tx: Tx, limit: int) -> int:
    """Removes reservations, of all teams, that have run out; how many."""
    old = (
        sa.select(_reservations.c.token)
        .where(_reservations.c.expires_at < tx.now())
        .order_by(_reservations.c.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    result = await tx.execute(sa.delete(_reservations).where(_reservations.c.token.in_(old)))
    return result.rowcount


async def compare(tx: Tx, after_team: str, limit: int) -> tuple[list[str], list[Difference]]:
    """The next so many teams, and those among them whose row and files disagree.

    One statement sees one moment, and rows change with their files: no lock is needed.
    """
    page = (
        sa.select(_storage.c.team, _storage.c.stored_bytes)
        .where(_storage.c.team > after_team)
        .order_by(_storage.c.team)
        .limit(limit)
        .subquery()
    )
    real = _real_bytes(page.c.team)
    rows = (await tx.execute(sa.select(page, real.label("real_bytes")))).all()
    found = [Difference(row.team, row.stored_bytes, row.real_bytes) for row in rows]
    wrong = [one for one in found if one.stored_bytes != one.real_bytes]
    return sorted(one.team for one in found), wrong


async def correct(tx: Tx, team: str) -> Difference:
    """Makes the team's row say what its files do; what it said before."""
    before = await lock(tx, team)
    real: int = await tx.scalar(sa.select(_real_bytes(sa.literal(team))))
    await tx.execute(sa.update(_storage).where(_storage.c.team == team).values(stored_bytes=real))
    return Difference(team, before.stored_bytes, real)


_size = _reservations.c.size_bytes


def _real_bytes(team: sa.ColumnElement[str]) -> sa.ScalarSelect[Any]:
    total = sa.cast(sa.func.sum(_files.c.size_bytes), sa.BigInteger)
    return (
        sa.select(sa.func.coalesce(total, 0))
        .where(_files.c.team == team, _files.c.deleted_at.is_(None))
        .scalar_subquery()
    )


async def _put(tx: Tx, team: str, more_bytes: int, limits: Mapping[str, int | None]) -> Storage:
    grown = _storage.c.stored_bytes + more_bytes
    rows = await tx.execute(
        tx.insert(_storage)
        .values(team=team, stored_bytes=more_bytes, **limits)
        .on_conflict_do_update(
            index_elements=[_storage.c.team], set_={"stored_bytes": grown, **limits}
        )
        .returning(_storage)
    )
    return _row(rows.one())


def _row(row: sa.Row[Any]) -> Storage:
    return Storage(row.stored_bytes, row.max_stored_bytes, row.calls_per_minute)
