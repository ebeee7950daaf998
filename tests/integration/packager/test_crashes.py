"""A packager that dies by SIGKILL at each of its crash points, and what the next one does."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from libs.common.db import Database
from services.packager import tables
from tests.integration.packager.house import CLOCK, House, check_archive, open_house
from tests.support.databases import DatabaseUrls, sqlite_database

# Job by crash point. P2: in the middle of the zip. P3: written; P3:2: a file of assets.
POINTS = {"P1": 1, "P2:2": 2, "P3": 3, "P3:2": 4, "P4": 5}
UNACKED = ("P1", "P4")  # the broker brings these again; the others were acked, and rows remember

NewDatabase = Callable[[str], DatabaseUrls]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Makes databases by name."""
    if request.param == "postgresql":
        templates = request.getfixturevalue("postgres_templates")
        return lambda _: templates.database("packager")

    def new(name: str) -> DatabaseUrls:
        folder = tmp_path / name.replace(":", "-")
        folder.mkdir()
        return sqlite_database("packager", folder)

    return new


async def test_dying_at_each_step_gives_one_zip(new_database: NewDatabase, tmp_path: Path) -> None:
    urls = {point: new_database(point) for point in POINTS}
    first = new_database("first")
    async with open_house(first, tmp_path) as house:
        images = {point: await house.job(job_id, 3) for point, job_id in POINTS.items()}
        async with asyncio.TaskGroup() as group:
            for point in POINTS:
                group.create_task(_die(house, point, urls[point]))
        assert not house.enqueue.reports
        assert [house.assets.files[n].job_id for n in house.assets.archives()] == [4]

        for reports, (point, job_id) in enumerate(POINTS.items(), start=1):
            begun = house.assets.calls.count("BeginArchive")
            await _let_leases_run_out(urls[point])
            await house.restart(**urls[point].settings("packager"))
            if point in UNACKED:
                await house.announce(job_id)
            team = house.team()
            await team.ended(job_id)
            check_archive((await team.download(job_id=job_id))[1], job_id, images[point])
            # A whole zip is not written a second time.
            again = 0 if point.startswith("P3:") else 1
            assert house.assets.calls.count("BeginArchive") - begun == again, point
            await house.reported(reports)  # the next packager has another database
        files = [house.assets.files[n].job_id for n in house.assets.archives()]
        assert sorted(files) == sorted(POINTS.values())
        assert not list((house.assets.root / ".tmp").iterdir())


async def _let_leases_run_out(urls: DatabaseUrls) -> None:
    """At once: leases so short that one waits for them would run out in a stall, too."""
    db = Database(urls.app, duty_url=urls.duty, clock=CLOCK)
    async with db.duty() as tx:
        await tx.execute(sa.update(tables.archives).values(lease_until=None))
    await db.stop()


async def _die(house: House, point: str, urls: DatabaseUrls) -> None:
    environ = house.environ | urls.settings("packager") | {"CRASH_AT": point}
    body = house.ended(POINTS[point]).SerializeToString()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.packager_process",
        json.dumps(environ),
        body.hex(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=Path(__file__).parents[3],
        env={"PYTHONPATH": "gen"},
    )
    assert await process.wait() == -signal.SIGKILL, point
