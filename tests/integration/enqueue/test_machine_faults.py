"""The machine under enqueue: a log that cannot be written, no descriptors left, wrong clocks."""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contentshop.enqueue.v1 import job_pb2
from libs.common.clock import SystemClock
from libs.common.errors import NotFoundError, UnavailableError
from tests.integration.enqueue.house import Clients, environment, fake_assets, open_house
from tests.support.databases import sqlite_database
from tests.support.eventually import eventually
from tests.support.service_process import service_process

SKEW_SECONDS = 25.0  # tokens bear thirty, a lease is twenty
SUCCEEDED, RUNNING = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_RUNNING


async def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    urls = sqlite_database("enqueue", tmp_path)
    async with AsyncExitStack() as stack:
        assets = await stack.enter_async_context(fake_assets())
        environ = environment(urls, assets.server.port, LOG_LEVEL="debug")
        running = await stack.enter_async_context(
            service_process("enqueue", environ, log=Path("/dev/full"))
        )
        clients = Clients(running.port, assets)
        stack.push_async_callback(clients.close)
        team = clients.team()
        for _ in range(30):  # every call is a line, or more
            with pytest.raises(NotFoundError):
                await team.get(10**6)
        job = await team.generate()
        await clients.worker().make_all(job.id)
        assert (await team.get(job.id)).state == SUCCEEDED
        assert running.process.returncode is None


def open_files(pid: int) -> int:
    """How many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_without_descriptors_it_waits_for_some(tmp_path: Path) -> None:
    urls = sqlite_database("enqueue", tmp_path)
    async with AsyncExitStack() as stack:
        assets = await stack.enter_async_context(fake_assets())
        environ = environment(urls, assets.server.port)
        running = await stack.enter_async_context(service_process("enqueue", environ))
        known, fresh = Clients(running.port, assets), Clients(running.port, assets)
        for clients in (known, fresh):
            stack.push_async_callback(clients.close)
        team = known.team()
        job = await team.generate()
        pid = running.process.pid
        # A few more than it has open; what stands beyond them waits to be accepted.
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_files(pid) + 8, hard))
        crowd = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(60)]
        try:
            for _ in range(10):  # who is connected is served, or told to come back
                await eventually(lambda: _answers(known, job.id), timeout_seconds=60)
        finally:
            for one in crowd:
                one.close()
        await eventually(lambda: _answers(fresh, job.id), timeout_seconds=60)
        assert running.process.returncode is None


async def _answers(clients: Clients, job_id: int) -> bool:
    try:
        return bool((await clients.team().get(job_id)).id == job_id)
    except UnavailableError:
        return False


class WrongClock(SystemClock):
    """The machine's, off by some seconds; what it measures is right."""

    def __init__(self, off_seconds: float) -> None:
        self._off = timedelta(seconds=off_seconds)

    def now(self) -> datetime:
        """The wrong time."""
        return super().now() + self._off


@pytest.mark.real
async def test_replicas_with_wrong_clocks_take_no_living_lease(postgres_templates: Any) -> None:
    urls = postgres_templates.database("enqueue")
    async with (
        open_house(urls, WrongClock(SKEW_SECONDS), LEASE_SECONDS="20") as ahead,
        open_house(urls, WrongClock(-SKEW_SECONDS), LEASE_SECONDS="20") as behind,
    ):
        team = ahead.team()
        behind.team()
        first, second = [await team.generate() for _ in range(2)]
        for job, here, there in ((first, ahead, behind), (second, behind, ahead)):
            claim = await here.worker().claim(job.id, f"c{job.id}")
            await asyncio.gather(*(h.app.duties["reaper"].once() for h in (ahead, behind)))
            assert not (await there.worker().renew({job.id: claim.fence})).lost_job_ids
            await asyncio.gather(*(h.app.duties["reaper"].once() for h in (ahead, behind)))
            assert (await behind.team().get(job.id)).state == RUNNING
            await there.worker().record(job.id, claim.fence, 1, job.id * 100)
            await here.worker().finish(job.id, claim.fence)
            ended = await team.get(job.id)
            assert (ended.state, ended.attempts, ended.lost_workers) == (SUCCEEDED, 1, 0)
