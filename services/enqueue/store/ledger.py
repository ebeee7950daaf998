"""Credits: one account per team that pays, and its ledger. One credit is one image.

granted = available + held + captured, always. A hold moves credits from available to held, and the
end of its job moves them on: what was used to captured, the rest back to available. An image's
capture is a row of the ledger alone, so that no image waits for its team's account.

The account's lock comes after the team's and the job's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from libs.common.many_rows import InsertRows
from services.enqueue import tables
from services.enqueue.domain import Job

_accounts = tables.accounts
_entries = tables.credit_entries
_add_entries = InsertRows(_entries, ("team", "kind", "amount", "job_id", "note"), times=("at",))


class EntryKind(StrEnum):
    """What an entry of the ledger does."""

    GRANT = "GRANT"
    HOLD = "HOLD"
    CAPTURE = "CAPTURE"
    RELEASE = "RELEASE"


@dataclass(frozen=True, slots=True)
class Account:
    """A team's credits."""

    granted: int = 0
    available: int = 0
    held: int = 0
    captured: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the ledger; job 0: none, image 0: none."""

    id: int
    kind: EntryKind
    amount: int
    job_id: int
    image_index: int
    note: str
    at: datetime


async def find(tx: Tx, team: str) -> Account | None:
    """A team's account as it stands; None where it has none."""
    row = (await tx.execute(sa.select(_accounts).where(_accounts.c.team == team))).one_or_none()
    return _account_of(row) if row else None


async def lock(tx: Tx, teams: Collection[str]) -> dict[str, Account]:
    """Takes the locks of the teams' accounts, in one order for everybody; those there are."""
    rows = await tx.execute(
        sa.select(_accounts)
        .where(_accounts.c.team.in_(teams))
        .order_by(_accounts.c.team)
        .with_for_update(key_share=True)
    )
    return {row.team: _account_of(row) for row in rows}


async def open_account(tx: Tx, team: str) -> None:
    """Makes a team's account, empty, where it has none."""
    nothing = {"granted": 0, "available": 0, "held": 0, "captured": 0}
    await tx.execute(
        tx.insert(_accounts)
        .values(team=team, created_at=tx.now(), **nothing)
        .on_conflict_do_nothing()
    )


async def grant(tx: Tx, team: str, amount: int, note: str) -> int:
    """Gives credits to an account; the entry's id. The caller holds the account's lock."""
    row = {"team": team, "kind": EntryKind.GRANT, "amount": amount, "note": note}
    entry = sa.insert(_entries).values(at=tx.now(), **row).returning(_entries.c.id)
    entry_id: int = (await tx.execute(entry)).scalar_one()
    await tx.execute(
        sa.update(_accounts)
        .where(_accounts.c.team == team)
        .values(granted=_accounts.c.granted + amount, available=_accounts.c.available + amount)
    )
    return entry_id


async def hold(tx: Tx, jobs: Sequence[Job]) -> None:
    """Sets the new jobs' credits aside. The caller holds the accounts' locks, and has counted."""
    rows = [_of_job(job, EntryKind.HOLD, job.hold.held) for job in jobs if job.hold]
    if not rows:
        return
    await _add_entries(tx, rows)
    sums: dict[str, int] = {}
    for row in rows:
        sums[row["team"]] = sums.get(row["team"], 0) + row["amount"]
    for team, amount in sorted(sums.items()):
        await tx.execute(
            sa.update(_accounts)
            .where(_accounts.c.team == team)
            .values(available=_accounts.c.available - amount, held=_accounts.c.held + amount)
        )


async def capture(tx: Tx, job: Job, image_index: int) -> None:
    """Notes that an image used its credit; a unique row. The caller holds the job's lock."""
    row = _of_job(job, EntryKind.CAPTURE, 1) | {"image_index": image_index}
    await tx.execute(sa.insert(_entries).inline().values(at=tx.now(), **row))


async def settle(tx: Tx, ended: Sequence[Job]) -> None:
    """Settles the holds of a team's ended jobs.

    What their images used is captured, the rest available again. Repeating it changes nothing: the
    one RELEASE entry of a job is the guard.
    """
    holds = {
        job.id: (job.hold.held, job.hold.released)
        for job in ended
        if job.hold is not None and job.hold.released is not None
    }
    rows = [_of_job(job, EntryKind.RELEASE, holds[job.id][1]) for job in ended if job.id in holds]
    if not rows:
        return
    entries = tx.insert(_entries).values(at=tx.now()).on_conflict_do_nothing()
    added = await tx.execute(entries.returning(_entries.c.job_id), rows)
    first = [holds[row.job_id] for row in added]
    if not first:
        return
    held = sum(hold for hold, _ in first)
    released = sum(rest for _, rest in first)
    await tx.execute(
        sa.update(_accounts)
        .where(_accounts.c.team == rows[0]["team"])
        .values(
            held=_accounts.c.held - held,
            captured=_accounts.c.captured + held - released,
            available=_accounts.c.available + released,
        )
    )


async def page(tx: Tx, team: str, *, job_id: int, before_id: int | None, limit: int) -> list[Entry]:
    """A team's entries with id below before_id, newest first; job 0 means all."""
    statement = sa.select(_entries).where(_entries.c.team == team)
    if job_id:
        statement = statement.where(_entries.c.job_id == job_id)
    if before_id is not None:
        statement = statement.where(_entries.c.id < before_id)
    rows = await tx.execute(statement.order_by(_entries.c.id.desc()).limit(limit))
    return [_entry_of(row) for row in rows]


def _of_job(job: Job, kind: EntryKind, amount: int) -> dict[str, Any]:
    return {"team": job.spec.team, "kind": kind, "amount": amount, "job_id": job.id, "note": ""}


def _account_of(row: sa.Row[Any]) -> Account:
    return Account(row.granted, row.available, row.held, row.captured)


def _entry_of(row: sa.Row[Any]) -> Entry:
    return Entry(
        id=row.id,
        kind=EntryKind(row.kind),
        amount=row.amount,
        job_id=row.job_id or 0,
        image_index=row.image_index or 0,
        note=row.note,
        at=row.at,
    )
