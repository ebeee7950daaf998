"""Old rows, removed a bounded step at a time."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Tx
from services.packager import tables

_archives = tables.archives
_keys = tables.idempotency_keys


async def remove_archives(tx: Tx, older_than_seconds: float, limit: int) -> int:
    """Removes archives that ended so long ago and have nothing left to report; how many.

    Their files are assets' to remove.
    """
    old = (
        sa.select(_archives.c.id)
        .where(
            _archives.c.finished_at < tx.after(-older_than_seconds),
            _archives.c.report_at.is_(None),
        )
        .order_by(_archives.c.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = (await tx.execute(old)).scalars().all()
    if ids:
        await tx.execute(sa.delete(_archives).where(_archives.c.id.in_(ids)))
    return len(ids)


async def remove_keys(tx: Tx, older_than_seconds: float, limit: int) -> int:
    """Removes idempotency keys that were kept so long ago; how many."""
    name = (_keys.c.team, _keys.c.method, _keys.c.request_id)
    old = (
        sa.select(*name)
        .where(_keys.c.created_at < tx.after(-older_than_seconds))
        .order_by(_keys.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    names = [tuple(row) for row in await tx.execute(old)]
    if names:
        await tx.execute(sa.delete(_keys).where(sa.tuple_(*name).in_(names)))
    return len(names)
