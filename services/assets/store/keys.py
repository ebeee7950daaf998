"""Idempotency keys of uploads (AIP-155): one answer per (team, request_id)."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from libs.common.db import Tx
from services.assets import tables

_keys = tables.idempotency_keys


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The caller's key of one upload, and a hash of its header (with the declared sha256)."""

    team: str
    request_id: str
    header_hash: str


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key seen before: what was said then, and the file it made."""

    header_hash: str
    file_id: int


async def find(tx: Tx, key: RequestKey) -> KeptKey | None:
    """The key as it was kept, if it was."""
    rows = await tx.execute(
        sa.select(_keys.c.header_hash, _keys.c.file_id).where(
            _keys.c.team == key.team, _keys.c.request_id == key.request_id
        )
    )
    row = rows.one_or_none()
    return None if row is None else KeptKey(row.header_hash, row.file_id)


async def add(tx: Tx, key: RequestKey, file_id: int) -> bool:
    """Keeps the key with its file; False when another upload has it already."""
    rows = await tx.execute(
        tx.insert(_keys)
        .values(
            team=key.team,
            request_id=key.request_id,
            header_hash=key.header_hash,
            file_id=file_id,
            created_at=tx.now(),
        )
        .on_conflict_do_nothing()
        .returning(_keys.c.file_id)
    )
    return rows.one_or_none() is not None
