"""What a team's images took."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import Usage

_images = tables.images


@dataclass(frozen=True, slots=True)
class TeamUsage:
    """Images made, the jobs they belong to, and what they took."""

    images: int
    jobs: int
    usage: Usage


async def between(tx: Tx, team: str, start: datetime | None, end: datetime | None) -> TeamUsage:
    """What a team's images DONE from start on and before end took; None: no such bound."""
    statement = sa.select(
        sa.func.count().label("images"),
        sa.func.count(_images.c.job_id.distinct()).label("jobs"),
        *(
            sa.cast(sa.func.coalesce(sa.func.sum(_images.c[name]), 0), sa.BigInteger).label(name)
            for name in ("prompt_tokens", "output_tokens", "total_tokens", "cost_micros")
        ),
    ).where(_images.c.team == team, _images.c.done_at.is_not(None))
    if start is not None:
        statement = statement.where(_images.c.done_at >= start)
    if end is not None:
        statement = statement.where(_images.c.done_at < end)
    row = (await tx.execute(statement)).one()
    usage = Usage(row.prompt_tokens, row.output_tokens, row.total_tokens, row.cost_micros)
    return TeamUsage(row.images, row.jobs, usage)
