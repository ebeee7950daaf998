"""Uploads whose bytes are put by URL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.assets import tables
from services.assets.domain import PendingUpload, Upload

_pending = tables.pending_uploads


async def add(tx: Tx, team: str, token: str, said: Upload, seconds: float) -> PendingUpload:
    """A new one, open for so many seconds."""
    rows = await tx.execute(
        tx.insert(_pending)
        .values(
            team=team,
            token=token,
            filename=said.filename,
            content_type=said.content_type,
            size_bytes=said.size_bytes,
            sha256=said.sha256,
            created_at=tx.now(),
            expires_at=tx.after(seconds),
        )
        .returning(_pending)
    )
    return _upload(rows.one())


async def find(tx: Tx, team: str, upload_id: int, *, completed: bool) -> PendingUpload | None:
    """The team's upload, while it is open; past that only one that became a file, if asked for."""
    open_still = _pending.c.expires_at > tx.now()
    rows = await tx.execute(
        sa.select(_pending).where(
            _pending.c.id == upload_id,
            _pending.c.team == team,
            sa.or_(open_still, _pending.c.file_id != 0) if completed else open_still,
        )
    )
    row = rows.one_or_none()
    return None if row is None else _upload(row)


async def complete(tx: Tx, team: str, upload_id: int, file_id: int) -> bool:
    """Says which file it became; False when it became one before."""
    result = await tx.execute(
        sa.update(_pending)
        .where(_pending.c.id == upload_id, _pending.c.team == team, _pending.c.file_id == 0)
        .values(file_id=file_id)
    )
    return result.rowcount == 1


def _upload(row: sa.Row[Any]) -> PendingUpload:
    said = Upload(row.filename, row.content_type, row.size_bytes, row.sha256)
    return PendingUpload(row.id, row.team, row.token, said, row.expires_at, row.file_id)
