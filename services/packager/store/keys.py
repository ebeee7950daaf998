"""Idempotency keys (AIP-155): one answer per (team, method, request_id)."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from libs.common.db import Tx
from services.packager import tables

_keys = tables.idempotency_keys


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The caller's key of one create, and a hash of what it asked for.

    `request_id` is empty where the caller gave none: then nothing is kept.
    """

    team: str
    method: str
    request_id: str
    body_hash: str


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key seen before: what was asked then, and what it made."""

    body_hash: str
    archive_id: int


async def find(tx: Tx, key: RequestKey) -> KeptKey | None:
    """What was kept under the key's name."""
    row = (
        await tx.execute(
            sa.select(_keys.c.body_hash, _keys.c.archive_id).where(
                _keys.c.team == key.team,
                _keys.c.method == key.method,
                _keys.c.request_id == key.request_id,
            )
        )
    ).one_or_none()
    return KeptKey(row.body_hash, row.archive_id) if row else None


async def add(tx: Tx, key: RequestKey, archive_id: int) -> bool:
    """Keeps the key; False when another call has kept it meanwhile."""
    row = await tx.execute(
        tx.insert(_keys)
        .values(
            team=key.team,
            method=key.method,
            request_id=key.request_id,
            body_hash=key.body_hash,
            archive_id=archive_id,
            created_at=tx.now(),
        )
        .on_conflict_do_nothing(index_elements=["team", "method", "request_id"])
        .returning(_keys.c.archive_id)
    )
    return row.one_or_none() is not None
