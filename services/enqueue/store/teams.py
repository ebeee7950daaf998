"""A team's own limits; NULL stands for the service's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables

_teams = tables.teams


@dataclass(frozen=True, slots=True)
class TeamLimits:
    """What a team may have at once and per minute; None: the service's default."""

    max_live_jobs: int | None
    calls_per_minute: int | None


async def lock_limits(tx: Tx, team: str) -> TeamLimits:
    """The limits of a team that has a row, under its lock."""
    row = (
        await tx.execute(
            sa.select(_teams.c.max_live_jobs, _teams.c.calls_per_minute)
            .where(_teams.c.team == team)
            .with_for_update(key_share=True)
        )
    ).one()
    return TeamLimits(row.max_live_jobs, row.calls_per_minute)


async def set_limits(tx: Tx, team: str, changes: Mapping[str, int | None]) -> TeamLimits:
    """Sets the named limits; all of them as they are then."""
    row = (
        await tx.execute(
            sa.update(_teams)
            .where(_teams.c.team == team)
            .values(**changes)
            .returning(_teams.c.max_live_jobs, _teams.c.calls_per_minute)
        )
    ).one()
    return TeamLimits(row.max_live_jobs, row.calls_per_minute)


async def calls_per_minute(tx: Tx) -> dict[str, int]:
    """The call rates of teams that have one of their own."""
    rows = await tx.execute(
        sa.select(_teams.c.team, _teams.c.calls_per_minute).where(
            _teams.c.calls_per_minute.is_not(None)
        )
    )
    return {row.team: row.calls_per_minute for row in rows}
