"""Events: numbered by the job's own counter, written in the transaction of the change."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from libs.common.many_rows import InsertRows
from services.enqueue import tables
from services.enqueue.domain import Event, EventKind, Fault, Job, Position
from services.enqueue.store.rows import event_of

_events = tables.events


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to write; `sequence` is the job's counter after the change, see `about`."""

    job_id: int
    team: str
    sequence: int
    kind: EventKind
    attempt: int = 0
    image_index: int = 0
    file_id: int = 0
    fault: Fault | None = None
    batch_id: int = 0


def about(
    job: Job,
    kind: EventKind,
    *,
    sequence: int = 0,
    index: int = 0,
    file_id: int = 0,
    fault: Fault | None = None,
) -> NewEvent:
    """The event of a change that `job` shows already; `sequence` where it is not the last one."""
    return NewEvent(
        job_id=job.id,
        team=job.spec.team,
        sequence=sequence or job.last_sequence,
        kind=kind,
        attempt=job.attempts,
        image_index=index,
        file_id=file_id,
        fault=fault,
        batch_id=job.spec.batch_id,
    )


async def add(tx: Tx, events: Sequence[NewEvent]) -> None:
    """Writes events; the primary key refuses a number that is taken."""
    if not events:
        return
    orders = await _commit_orders(tx, sorted({e.team for e in events}))
    rows = [
        {
            "job_id": e.job_id,
            "team": e.team,
            "sequence": e.sequence,
            "kind": e.kind,
            "image_index": e.image_index,
            "file_id": e.file_id,
            "attempt": e.attempt,
            "error_reason": e.fault.reason if e.fault else None,
            "error_message": e.fault.message if e.fault else None,
            "batch_id": e.batch_id or None,
            **({"commit_order": orders[e.team]} if orders else {}),
        }
        for e in events
    ]
    await _adding(tx, rows)


async def _commit_orders(tx: Tx, teams: Sequence[str]) -> dict[str, int]:
    """What orders each team's new events on SQLite; nothing on PostgreSQL, which knows itself.

    PostgreSQL takes the transaction's id. It says when the transaction began to write, not when
    it committed: so readers take only what stands before every open transaction, see
    `after_position`. SQLite has one writer: there it is a number that grows, and keeps ahead of
    the clock, so that it does not fall back when a team's last events are removed.
    """
    return {} if tx.on_postgres else {team: await _sqlite_end(tx, team) for team in teams}


def _number(xid: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """A 64-bit transaction id as a number; PostgreSQL casts it by way of text alone."""
    return sa.cast(sa.cast(xid, sa.Text), sa.BigInteger)


def _postgres_order(job_id: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """The transaction's id, or the order of the job's last event where that is higher.

    Who drew the lower id may wait for the job's lock behind who drew the higher: its event comes
    second by its number, and must by its order. It is as sure as before: whoever holds back the
    lower id holds back the higher.
    """
    earlier = _events.alias("earlier")
    last = (
        sa.select(earlier.c.commit_order)
        .where(earlier.c.job_id == job_id)
        .order_by(earlier.c.sequence.desc())
        .limit(1)
        .scalar_subquery()
    )
    return sa.func.greatest(_number(sa.func.pg_current_xact_id()), last)


_adding = InsertRows(
    _events,
    (
        *("job_id", "team", "sequence", "kind", "image_index", "file_id", "attempt"),
        *("error_reason", "error_message", "batch_id"),
    ),
    times=("at",),
    computed=lambda given: {"commit_order": _postgres_order(given.job_id)},
)


async def _sqlite_end(tx: Tx, team: str) -> int:
    """What the team's next event on SQLite gets: microseconds since 1970, or more."""
    after_last = sa.func.coalesce(sa.func.max(_events.c.commit_order), 0) + 1
    now = sa.cast(tx.now(), sa.BigInteger)
    end: int = await tx.scalar(
        sa.select(
            sa.func.max(sa.select(after_last).where(_events.c.team == team).scalar_subquery(), now)
        )
    )
    return end


async def after(tx: Tx, job_id: int, sequence: int, limit: int, *, team: str) -> list[Event]:
    """A team's job's events behind a number, in order."""
    rows = await tx.execute(
        sa.select(_events)
        .where(_events.c.job_id == job_id, _events.c.sequence > sequence, _events.c.team == team)
        .order_by(_events.c.sequence)
        .limit(limit)
    )
    return [event_of(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some events of a team or a batch, in the order of commits.

    Attributes:
        events: behind the position asked for.
        more: there are more, beyond the limit.
        held_back: there are newer ones that may still be overtaken: look again soon.
    """

    events: list[Event]
    more: bool
    held_back: bool


async def after_position(
    tx: Tx, position: Position, limit: int, *, team: str, batch_id: int = 0
) -> Stretch:
    """A team's events, or those of one of its batches, behind a position.

    A transaction that began early may commit late: its events then stand before others that were
    to be seen already. So only what stands before every transaction that is still open is given.
    """
    order = sa.tuple_(_events.c.commit_order, _events.c.job_id, _events.c.sequence)
    statement = (
        sa.select(_events, _oldest_open(tx).label("oldest_open"))
        .where(_events.c.team == team, order > sa.tuple_(*map(_big, position)))
        .order_by(_events.c.commit_order, _events.c.job_id, _events.c.sequence)
        .limit(limit + 1)  # one more says that there are more: a full page may be the last
    )
    if batch_id:
        statement = statement.where(_events.c.batch_id == batch_id)
    found = (await tx.execute(statement)).all()
    rows = found[:limit]
    sure = [row for row in rows if row.oldest_open is None or row.commit_order < row.oldest_open]
    held_back = len(sure) < len(rows)
    return Stretch([event_of(row) for row in sure], not held_back and len(found) > limit, held_back)


@dataclass(frozen=True, slots=True)
class Horizon:
    """Where the order of commits ends just now, for one team.

    Attributes:
        sure: events before it are all there; later ones come behind it.
        end: no event stands there or behind it yet.
    """

    sure: Position
    end: Position


async def horizon(tx: Tx, team: str) -> Horizon:
    """Where a team's events end."""
    if not tx.on_postgres:
        end = Position(await _sqlite_end(tx, team), 0, 0)
        return Horizon(end, end)
    current = sa.func.pg_current_snapshot()
    ends = sa.select(
        _number(sa.func.pg_snapshot_xmin(current)).label("sure"),
        _number(sa.func.pg_snapshot_xmax(current)).label("end"),
    )
    row = (await tx.execute(ends)).one()
    return Horizon(Position(row.sure, 0, 0), Position(row.end, 0, 0))


async def newest_of_teams(tx: Tx, teams: Collection[str]) -> dict[str, int]:
    """The commit order of each team's newest event, sure or not."""
    newest = (
        sa.select(sa.func.max(_events.c.commit_order))
        .where(_events.c.team == tables.teams.c.team)
        .scalar_subquery()
    )
    rows = await tx.execute(
        sa.select(tables.teams.c.team, newest.label("newest")).where(tables.teams.c.team.in_(teams))
    )
    return {row.team: row.newest for row in rows if row.newest is not None}


async def newest_of_batches(tx: Tx, batch_ids: Collection[int]) -> dict[int, int]:
    """The commit order of each batch's newest event, sure or not."""
    newest = (
        sa.select(sa.func.max(_events.c.commit_order))
        .where(_events.c.batch_id == tables.batches.c.id)
        .scalar_subquery()
    )
    rows = await tx.execute(
        sa.select(tables.batches.c.id, newest.label("newest")).where(
            tables.batches.c.id.in_(batch_ids)
        )
    )
    return {row.id: row.newest for row in rows if row.newest is not None}


def _oldest_open(tx: Tx) -> sa.ColumnElement[Any]:
    """The oldest transaction that is still open; NULL where writers wait for one another."""
    if not tx.on_postgres:
        return sa.null()
    return _number(sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot()))


def _big(number: int) -> sa.ColumnElement[int]:
    return sa.literal(number, sa.BigInteger())


async def after_each(tx: Tx, cursors: Mapping[int, int]) -> dict[int, list[Event]]:
    """The events of several jobs, each behind its own number, in one query."""
    lowest = min(cursors.values())
    rows = await tx.execute(
        sa.select(_events)
        .where(_events.c.job_id.in_(list(cursors)), _events.c.sequence > lowest)
        .order_by(_events.c.job_id, _events.c.sequence)
    )
    found: dict[int, list[Event]] = {job_id: [] for job_id in cursors}
    for event in map(event_of, rows):
        if event.sequence > cursors[event.job_id]:
            found[event.job_id].append(event)
    return found
