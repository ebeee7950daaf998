"""Pins: while one holds, its file is not deleted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from libs.common.many_rows import InsertRows
from services.assets import tables

_pins = tables.pins

Name = tuple[str, str]
"""A team and one of its pin tokens."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A file of a team, and the token it is pinned under."""

    team: str
    pin_token: str
    file_id: int


async def add(tx: Tx, new: Sequence[Pin], pin_seconds: float) -> None:
    """Pins files for so many seconds; a pin that lasts goes on lasting.

    The caller holds the files (`files.find_images_of`), in this transaction.
    """
    # A call that is repeated while its first waits comes twice, and one statement may not touch a
    # row twice.
    once = dict.fromkeys(new)
    rows = [{"team": pin.team, "pin_token": pin.pin_token, "file_id": pin.file_id} for pin in once]
    await _adding(tx, rows, seconds=pin_seconds)


def _renewed(insert: Any) -> Any:
    """A pin that is there holds longer; one that lasts goes on lasting."""
    lasts = _pins.c.expires_at.is_(None)
    return insert.on_conflict_do_update(
        index_elements=_KEY,
        set_={"expires_at": sa.case((lasts, sa.null()), else_=insert.excluded.expires_at)},
    )


_KEY = ("team", "pin_token", "file_id")
_adding = InsertRows(_pins, _KEY, times=("expires_at",), on_conflict=_renewed)


async def make_lasting(tx: Tx, names: Collection[Name]) -> None:
    """The pins of these tokens hold until they are released."""
    if names:
        await tx.execute(sa.update(_pins).where(_named(names)).values(expires_at=None))


async def release(tx: Tx, names: Collection[Name]) -> None:
    """Takes the pins of these tokens away."""
    if names:
        await tx.execute(sa.delete(_pins).where(_named(names)))


async def holds(tx: Tx, team: str, file_id: int) -> bool:
    """Whether a pin holds the file."""
    unexpired = sa.or_(_pins.c.expires_at.is_(None), _pins.c.expires_at > tx.now())
    found = sa.exists().where(_pins.c.team == team, _pins.c.file_id == file_id, unexpired)
    return bool(await tx.scalar(sa.select(found)))


async def forget_expired(tx: Tx, memory_seconds: float, limit: int) -> int:
    """Removes pins, of all teams, that expired so many seconds ago; how many."""
    old = (
        sa.select(_pins.c.team, _pins.c.pin_token, _pins.c.file_id)
        .where(_pins.c.expires_at < tx.after(-memory_seconds))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    key = sa.tuple_(_pins.c.team, _pins.c.pin_token, _pins.c.file_id)
    result = await tx.execute(sa.delete(_pins).where(key.in_(old)))
    return result.rowcount


def _named(names: Collection[Name]) -> sa.ColumnElement[bool]:
    return sa.tuple_(_pins.c.team, _pins.c.pin_token).in_(list(names))
