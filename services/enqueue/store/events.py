"""Events: numbered by the job's own counter, written in the transaction of the change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import Event, EventKind, Fault
from services.enqueue.store.rows import event_of

_events = tables.events


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to write; `sequence` is the job's counter after the change."""

    job_id: int
    team: str
    sequence: int
    kind: EventKind
    attempt: int = 0
    image_index: int = 0
    file_id: int = 0
    fault: Fault | None = None


async def add(tx: Tx, events: Sequence[NewEvent]) -> None:
    """Writes events; the primary key refuses a number that is taken."""
    if not events:
        return
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
        }
        for e in events
    ]
    await tx.execute(sa.insert(_events).values(at=tx.now()), rows)


async def after(tx: Tx, job_id: int, sequence: int, limit: int, *, team: str) -> list[Event]:
    """A team's job's events behind a number, in order."""
    rows = await tx.execute(
        sa.select(_events)
        .where(_events.c.job_id == job_id, _events.c.sequence > sequence, _events.c.team == team)
        .order_by(_events.c.sequence)
        .limit(limit)
    )
    return [event_of(row) for row in rows]


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
