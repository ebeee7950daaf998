"""A canceled transaction gives SQLite's write lock back at once, wherever it was canceled."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from libs.common.clock import SystemClock
from libs.common.db import Database
from libs.common.lifecycle import TaskOwner

STEPS = 300
STEP_SECONDS = 0.004 / STEPS


@pytest.fixture
def no_collector() -> Iterator[None]:
    """A lost connection must not be found by the garbage collector: that may take minutes."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_a_canceled_transaction_leaves_no_lock(tmp_path: Path) -> None:
    db = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", clock=SystemClock())

    async def write() -> None:
        async with db.duty() as tx:
            await tx.execute(sa.text("INSERT INTO t VALUES (1)"))
            await tx.execute(sa.text("SELECT count(*) FROM t"))

    async with db.duty() as tx:
        await tx.execute(sa.text("CREATE TABLE t (a integer)"))
    kept = []  # as whoever logs a fault keeps its traceback, and the connection with it
    owner = TaskOwner()
    for steps in range(STEPS):
        work = owner.spawn(write(), name="write", awaited=True)
        # Not a wait for anything: it picks where in the transaction the cancel comes.
        await asyncio.sleep(steps * STEP_SECONDS)
        work.cancel()
        kept.append(await asyncio.gather(work, return_exceptions=True))
        # Of a lock left behind, busy_timeout makes an error after 5 s.
        async with asyncio.timeout(60):
            await write()
    await db.stop()
