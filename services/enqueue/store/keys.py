"""Idempotency keys (AIP-155): one answer per (team, method, request_id)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables

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

    @property
    def name(self) -> tuple[str, str, str]:
        """What must be unique."""
        return (self.team, self.method, self.request_id)


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key seen before: what was asked then, and what it made."""

    body_hash: str
    job_id: int


async def find(
    tx: Tx, names: Collection[tuple[str, str, str]]
) -> dict[tuple[str, str, str], KeptKey]:
    """Those of the names that were seen before."""
    if not names:
        return {}
    name = sa.tuple_(_keys.c.team, _keys.c.method, _keys.c.request_id)
    rows = await tx.execute(sa.select(_keys).where(name.in_(list(names))))
    return {
        (row.team, row.method, row.request_id): KeptKey(row.body_hash, row.job_id) for row in rows
    }


async def add(tx: Tx, keys: Sequence[tuple[RequestKey, int]]) -> None:
    """Keeps keys with the jobs they made."""
    if not keys:
        return
    rows = [
        {
            "team": key.team,
            "method": key.method,
            "request_id": key.request_id,
            "body_hash": key.body_hash,
            "job_id": job_id,
        }
        for key, job_id in keys
    ]
    await tx.execute(sa.insert(_keys).values(created_at=tx.now()), rows)
