"""Lanes: which are paused, and ringing for all that waits in one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import JobState

_jobs = tables.jobs
_paused = tables.paused_lanes


@dataclass(frozen=True, slots=True)
class Pause:
    """Why an operator has paused a lane, and since when."""

    reason: str
    at: datetime


async def paused(tx: Tx) -> dict[str, Pause]:
    """The paused lanes."""
    rows = await tx.execute(sa.select(_paused))
    return {row.lane: Pause(row.reason, row.paused_at) for row in rows}


async def pause(tx: Tx, lane: str, reason: str) -> None:
    """Pauses a lane; one that is paused gets the new reason."""
    await tx.execute(
        tx.insert(_paused)
        .values(lane=lane, reason=reason, paused_at=tx.now())
        .on_conflict_do_update(index_elements=["lane"], set_={"reason": reason})
    )


async def resume(tx: Tx, lane: str) -> bool:
    """Opens a lane, and makes every admitted job of it due for its doorbell; was it paused?"""
    gone = await tx.execute(
        sa.delete(_paused).where(_paused.c.lane == lane).returning(_paused.c.lane)
    )
    if gone.one_or_none() is None:
        return False
    await tx.execute(
        sa.update(_jobs)
        .where(
            _jobs.c.lane == lane,
            _jobs.c.state == JobState.QUEUED,
            _jobs.c.admitted_at.is_not(None),
            _jobs.c.ring_at.is_not(None),
        )
        .values(ring_at=tx.now(), rings=0)
    )
    return True
