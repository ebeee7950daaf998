"""The audit: who did what to jobs, limits and credits; written in the transaction of the act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables

_entries = tables.audit_entries


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act of a person or a program."""

    id: int
    team: str
    actor: str
    action: str
    job_id: int
    details: Mapping[str, Any]
    at: datetime


async def add(
    tx: Tx,
    team: str,
    actor: str,
    action: str,
    *,
    job_id: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Notes an act.

    Args:
        tx: the transaction of the act itself.
        team: whose thing it was; empty where it was nobody's.
        actor: the token's subject.
        action: a stable UPPER_SNAKE word, such as REVIEW_JOB.
        job_id: the job, where there is one.
        details: small facts, old and new; no prompt, no secret.
    """
    row = {"team": team, "actor": actor, "action": action, "job_id": job_id}
    values = sa.insert(_entries).inline().values(at=tx.now(), details=dict(details or {}), **row)
    await tx.execute(values)


async def page(
    tx: Tx, *, team: str, job_id: int, before_id: int | None, limit: int
) -> list[AuditEntry]:
    """Entries with id below before_id, newest first; an empty team and job 0 mean all."""
    statement = sa.select(_entries).order_by(_entries.c.id.desc()).limit(limit)
    if team:
        statement = statement.where(_entries.c.team == team)
    if job_id:
        statement = statement.where(_entries.c.job_id == job_id)
    if before_id is not None:
        statement = statement.where(_entries.c.id < before_id)
    return [_entry_of(row) for row in await tx.execute(statement)]


def _entry_of(row: sa.Row[Any]) -> AuditEntry:
    return AuditEntry(row.id, row.team, row.actor, row.action, row.job_id or 0, row.details, row.at)
