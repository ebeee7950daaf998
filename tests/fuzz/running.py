"""Makes many calls, some at once, while the process's memory is watched; what they found."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from tests.fuzz.calls import Call, calls, drawn
from tests.fuzz.house import House
from tests.fuzz.judging import Tally, judge
from tests.fuzz.pool import Pool
from tests.fuzz.promises import broken_promises
from tests.support.eventually import eventually

AT_ONCE = 4
# After these nothing would be as other calls find it.
REPAIRED = ("SetTeamLimits", "SetTeamStorage", "PauseLane", "DrainWorker")
# What the services may say while they are called so; anything else is a fault of ours.
FAULTS = {"rpc.fault", "rpc.stray_cancel", "rpc.unlisted", "task.failed", "job.fault", "db.commit"}
# A process that has served a thousand calls grows by less with the next thousands: services,
# callers and what the calls left in SQLite's and gRPC's caches together.
MAX_GROWN_BYTES = 192 * 2**20


def resident_bytes() -> int:
    """Of this process, services included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def make_all(house: House, found: Sequence[Call], tally: Tally) -> None:
    """Makes the calls, a few at once, and judges each answer."""
    waiting: Iterator[Call] = iter(found)

    async def caller() -> None:
        for call in waiting:
            await judge(house, call, tally)
            if call.method.endswith(REPAIRED):
                await house.repair()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(caller())


async def fuzz(house: House, pool: Pool, count: int, number: int | None, tally: Tally) -> None:
    """So many calls of a seed."""
    # Drawn beside the loop: leases and streams live on meanwhile.
    found = await asyncio.to_thread(drawn, calls(pool), count, number)
    with structlog.testing.capture_logs() as logged:
        await make_all(house, found, tally)
        await house.repair()
    faults = [entry for entry in logged if entry["event"] in FAULTS]
    tally.failures += [f"the log says {entry}" for entry in faults]


async def check_promises(house: House, tally: Tally) -> None:
    """Ends all jobs; puts what does not hold then on the tally."""
    await house.come_to_rest()

    async def hold() -> bool:
        broken = await asyncio.to_thread(broken_promises, house)
        assert not broken, "\n".join(broken[:20])
        return True

    try:
        await eventually(hold, timeout_seconds=60, what="the promises hold")
    except AssertionError as error:
        tally.failures.append(str(error))
