"""The embedded database: another holds its lock, its disk is full."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from contentshop.enqueue.v1 import enqueue_pb2
from libs.common.errors import ContentshopError, ResourceExhaustedError, UnavailableError
from tests.integration.enqueue.house import Clients, Team, environment, fake_assets, open_house
from tests.support.databases import sqlite_database
from tests.support.service_process import service_process


async def jobs_of(team: Team) -> list[int]:
    return [job.id for job in (await team.call("ListJobs", enqueue_pb2.ListJobsRequest())).jobs]


async def test_a_lock_held_by_another_process_is_a_clean_error(tmp_path: Path) -> None:
    async with open_house(sqlite_database("enqueue", tmp_path)) as house:
        team = house.team()
        path = tmp_path / "enqueue.db"
        connect = partial(sqlite3.connect, path, isolation_level=None, check_same_thread=False)
        with closing(connect(timeout=60)) as other:
            # In a thread: it waits for a write of the house, which needs this one to end.
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            with pytest.raises(UnavailableError) as caught:
                await team.generate(request_id="once")
            assert caught.value.retry_after_seconds
            assert await jobs_of(team) == []  # reading goes on beside it
            other.execute("ROLLBACK")
        job = await team.generate(request_id="once")
        assert await jobs_of(team) == [job.id]


async def test_a_full_disk_is_a_clean_error_and_loses_nothing(tmp_path: Path) -> None:
    """No file may grow: the same for SQLite as a full disk, without root or a mount."""
    urls = sqlite_database("enqueue", tmp_path)
    async with fake_assets() as assets:
        environ = environment(urls, assets.server.port)
        async with service_process("enqueue", environ) as running:
            clients = Clients(running.port, assets)
            team = clients.team()
            first = await team.generate(request_id="before")
            unlimited = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
            with pytest.raises(ContentshopError) as caught:
                await team.generate(request_id="none")
            assert isinstance(caught.value, UnavailableError | ResourceExhaustedError)
            assert caught.value.retry_after_seconds
            assert await jobs_of(team) == [first.id]
            resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, unlimited)
            second = await team.generate(request_id="none")
            assert (await team.generate(request_id="before")).id == first.id
            assert sorted(await jobs_of(team)) == [first.id, second.id]
            await clients.close()
    with closing(sqlite3.connect(tmp_path / "enqueue.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
