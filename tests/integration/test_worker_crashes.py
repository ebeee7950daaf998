"""A worker that dies by SIGKILL at each of its crash points, and what the next one does."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.support.worker_house import House

POINTS = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.start()
    yield house
    await house.stop()


async def die(house: House, job_id: int, point: str) -> list[str]:
    """What the worker's generator said before it died."""
    settings = asdict(house.settings(crash_at=point, name=f"worker-{point}"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.worker_process",
        str(job_id),
        json.dumps(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": "gen"},
    )
    assert process.stdout is not None
    said = await process.stdout.read()
    assert await process.wait() == -signal.SIGKILL, point
    return said.decode().split("\n")[:-1]


async def test_dying_at_each_step_loses_nothing(house: House) -> None:
    jobs = {point: house.job(number) for number, point in enumerate(POINTS, start=1)}
    async with asyncio.TaskGroup() as group:
        deaths = {p: group.create_task(die(house, job.job_id, p)) for p, job in jobs.items()}
    said = {point: death.result() for point, death in deaths.items()}
    made = ["called 1", "made 1"]
    assert said == {
        "W1": [],
        "W2": [],
        "W3": ["called 1"],
        **dict.fromkeys(("W4", "W5", "W6", "W7", "W8"), made),
    }
    stored = {job_id for job_id, _ in house.assets.stored}
    assert stored == {jobs[point].job_id for point in ("W6", "W7", "W8")}
    assert {p for p, job in jobs.items() if job.images} == {"W7", "W8"}
    assert {p: job.state for p, job in jobs.items()} == {
        **dict.fromkeys(POINTS, "RUNNING"),
        "W1": "QUEUED",
        "W8": "SUCCEEDED",
    }

    for job in jobs.values():  # the reaper, and the doorbells it rings
        if job.state == "RUNNING":
            job.state = "QUEUED"
    await house.worker()
    await house.ring(*(job.job_id for job in jobs.values()))
    for job in jobs.values():
        await house.until_state(job, "SUCCEEDED")
    # What was recorded is not made again; what was only stored keeps its first file.
    again = {request.job_id for request in house.generator.requests}
    assert again == {jobs[p].job_id for p in ("W1", "W2", "W3", "W4", "W5", "W6")}
    kept = jobs["W6"].job_id
    assert jobs["W6"].files == {1: house.assets.stored[kept, 1][0]}
    assert max(job.fence for job in jobs.values()) == 2
