"""What enqueue is still to be told."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Tx
from services.packager import tables
from services.packager.domain import Archive
from services.packager.store.archives import FACTS, archive_of

_archives = tables.archives


async def take(tx: Tx, limit: int, retake_seconds: float) -> list[Archive]:
    """Archives whose report is due, kept from others for a while; each counts as failed first."""
    due = await tx.execute(
        sa.select(_archives.c.id)
        .where(_archives.c.report_at <= tx.now())
        .order_by(_archives.c.report_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = await tx.execute(
        sa.update(_archives)
        .where(_archives.c.id.in_(due.scalars().all()))
        .values(
            report_at=tx.after(retake_seconds),
            report_failures=_archives.c.report_failures + 1,
        )
        .returning(*FACTS)
    )
    return [archive_of(row) for row in rows]


async def arrived(tx: Tx, archive: Archive) -> None:
    """Nothing more to say of the archive as it was reported; what came since stays due."""
    await tx.execute(
        sa.update(_archives)
        .where(
            _archives.c.id == archive.id,
            _archives.c.fence == archive.fence,
            _archives.c.state == archive.state,
            # Asked for again while the report was on its way: then none has failed yet.
            _archives.c.report_failures == archive.report_failures,
        )
        .values(report_at=None, report_failures=0, reported_at=tx.now())
    )


async def later(tx: Tx, archive: Archive, wait_seconds: float) -> None:
    """Reports again after a wait."""
    await tx.execute(
        sa.update(_archives)
        .where(
            _archives.c.id == archive.id,
            _archives.c.fence == archive.fence,
            _archives.c.state == archive.state,
        )
        .values(report_at=tx.after(wait_seconds))
    )
