"""Two transactions that wait for each other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from libs.common.clock import SystemClock
from libs.common.db import Database
from libs.common.errors import AbortedError
from services.enqueue.store import admission

TEAMS = ["one", "two"]
LOCK = sa.text("SELECT team FROM teams WHERE team = :team FOR UPDATE")


@pytest.mark.real
async def test_of_two_in_a_deadlock_one_is_aborted_and_may_come_again(
    postgres_templates: Any,
) -> None:
    urls = postgres_templates.database("enqueue")
    db = Database(urls.app, duty_url=urls.duty, clock=SystemClock())
    async with db.transaction(*TEAMS) as tx:
        await admission.ensure_teams(tx, TEAMS)
    both = asyncio.Barrier(2)

    async def cross(first: str, second: str) -> None:
        async with db.transaction(*TEAMS) as tx:
            await tx.execute(LOCK, {"team": first})
            await both.wait()
            await tx.execute(LOCK, {"team": second})

    ends = await asyncio.gather(cross(*TEAMS), cross(*reversed(TEAMS)), return_exceptions=True)
    aborted = [end for end in ends if end is not None]
    assert [type(end) for end in aborted] == [AbortedError]
    assert isinstance(aborted[0], AbortedError)
    assert aborted[0].retry_after_seconds
    async with asyncio.timeout(10):  # neither left a lock behind
        async with db.transaction(*TEAMS) as tx:
            for team in TEAMS:
                await tx.execute(LOCK, {"team": team})
    await db.stop()
