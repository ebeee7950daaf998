"""Old rows, removed a bounded step at a time."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common import request_keys
from libs.common.db import Tx
from services.packager import tables

_archives = tables.archives


async def remove_archives(tx: Tx, older_than_seconds: float, limit: int) -> int:
    """Removes archives that ended so long ago and have nothing left to report; how many.

    Their files are assets' to remove.
    """
    old = (
        sa.select(_archives.c.id)
        .where(
            _archives.c.finished_at < tx.ago(older_than_seconds),
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
    """Forgets keys that were kept so long ago; how many."""
    return await request_keys.forget(tx, tables.idempotency_keys, older_than_seconds, limit)
