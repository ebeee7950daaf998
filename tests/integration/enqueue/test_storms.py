"""Very many at once: repeats, watchers, watchers who all come back, ends of one job."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2, ops_pb2
from libs.common.auth import mint_user_token
from libs.common.db import Database
from libs.common.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    LeaseLostError,
    ResourceExhaustedError,
    UnavailableError,
)
from libs.common.grpc_client import CHANNEL_OPTIONS, RpcClient
from services.enqueue import tables
from tests.integration.enqueue.house import CLOCK, USER_SECRET, House, Team, open_house
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually
from tests.support.proxy import TcpProxy

REPEATS = 1_000
WATCHERS = 300
STREAMS_PER_CONNECTION = 150
PATIENCE_SECONDS = 120.0  # of a busy machine
EVENTS = (1, 2, 3, 4, 5)  # of a job of one image


def team_at(house: House, port: int) -> Team:
    """The team's client on a connection of its own."""
    token = mint_user_token(
        secret=USER_SECRET, issuer="contentshop", team="red", scopes=["team"], clock=CLOCK
    )
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
    client = RpcClient(channel, lambda: token)
    house.clients.append(client)
    return Team(client)


async def patient(team: Team) -> job_pb2.Job:
    """As a client does that is told to come back: again and again with its request_id."""
    while True:
        try:
            return await team.generate(request_id="again")
        except (ResourceExhaustedError, UnavailableError, DeadlineExceededError) as error:
            await asyncio.sleep(error.retry_after_seconds or 0.1)


async def test_a_thousand_repeats_make_one_job(urls: DatabaseUrls) -> None:
    async with open_house(urls) as house, asyncio.timeout(PATIENCE_SECONDS):
        await house.ops().grant("red", 5)
        team = house.team()
        made = await asyncio.gather(*(patient(team) for _ in range(REPEATS)))
        assert len({job.id for job in made}) == 1
        found = await team.call("ListJobs", enqueue_pb2.ListJobsRequest())
        assert [job.id for job in found.jobs] == [made[0].id]
        assert (await team.credits()).held == 1


class Watcher:
    """Watches a job, now here, now there, with its cursor."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.final = 0

    async def watch(self, team: Team, job_id: int) -> bool:
        """Until the end, or (False) until it is sent away."""
        cursor = self.events[-1] if self.events else 0
        try:
            async for message in team.watch(job_id, cursor):
                if message.HasField("event"):
                    self.events.append(message.event.sequence)
                self.final += message.final
        except UnavailableError as error:
            if error.reason != "GOING_AWAY":
                raise
            return False
        return True


async def nobody_watches(house: House) -> None:
    """No watcher is remembered, and no stream's place is held."""
    interceptor = house.app.server.interceptor
    assert interceptor is not None
    await eventually(lambda: house.app.hub.watchers == interceptor.open_streams == 0)


@pytest.mark.real
async def test_hundreds_watch_at_once_and_all_come_back_at_once(postgres_templates: Any) -> None:
    urls = postgres_templates.database("enqueue")
    async with AsyncExitStack() as stack:
        # So few connections that most would be turned away if they stood in line for them.
        one = await stack.enter_async_context(open_house(urls, ENQUEUE_POOL_SIZE="2"))
        two = await stack.enter_async_context(open_house(urls, ENQUEUE_POOL_SIZE="2"))
        connections = WATCHERS // STREAMS_PER_CONNECTION
        first = [team_at(one, one.port) for _ in range(connections)]
        second = [team_at(two, two.port) for _ in range(connections)]
        job = await one.team().generate()
        watchers = [Watcher() for _ in range(WATCHERS)]
        here = asyncio.gather(
            *(watcher.watch(first[n % connections], job.id) for n, watcher in enumerate(watchers))
        )
        await eventually(lambda: one.app.hub.watchers == WATCHERS, timeout_seconds=PATIENCE_SECONDS)
        one.app.hub.send_away()
        assert not any(await here)
        there = asyncio.gather(
            *(watcher.watch(second[n % connections], job.id) for n, watcher in enumerate(watchers))
        )
        await eventually(lambda: two.app.hub.watchers == WATCHERS, timeout_seconds=PATIENCE_SECONDS)
        await two.worker().make_all(job.id)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert all(await there)
        seen = Counter((tuple(watcher.events), watcher.final) for watcher in watchers)
        assert seen == {(EVENTS, 1): WATCHERS}
        for house in (one, two):
            await nobody_watches(house)


async def test_watchers_whose_connection_breaks_are_forgotten(house: House) -> None:
    job = await house.team().generate()
    async with TcpProxy("127.0.0.1", house.port) as proxy:
        team = team_at(house, proxy.port)
        watching = asyncio.gather(
            *(Watcher().watch(team, job.id) for _ in range(50)), return_exceptions=True
        )
        await eventually(lambda: house.app.hub.watchers == 50)
        await proxy.refuse()
        assert all(isinstance(end, Exception) for end in await watching)
        await nobody_watches(house)


async def test_an_end_a_cancel_and_the_reapers_settle_once(urls: DatabaseUrls) -> None:
    """K1: four hands on one job, again and again; the ledger bears one settlement out."""
    async with open_house(urls, LEASE_SECONDS="5") as house:
        team, ops = house.team(), house.ops()
        await ops.grant("red", 100)
        db = Database(urls.app, duty_url=urls.duty, clock=CLOCK)
        ended: Counter[int] = Counter()
        for _ in range(8):
            job = await team.generate(number_of_variations=2)
            await _race(house, db, team, job.id)
            settled = await team.get(job.id)
            ended[settled.state] += 1
            assert settled.credits.held == settled.credits.captured + settled.credits.released == 2
        await db.stop()
        assert set(ended) <= {job_pb2.JOB_STATE_CANCELED, job_pb2.JOB_STATE_SUCCEEDED}
        credits_left = await team.credits()
        assert credits_left.held == 0
        assert credits_left.available + credits_left.captured == 100
        answer = await ops.call("CheckCredits", ops_pb2.CheckCreditsRequest())
        assert list(answer.differences) == []


async def _race(house: House, db: Database, team: Team, job_id: int) -> None:
    """Ends a job by its worker, by a cancel and by two reapers, all at once."""
    worker, reaper = house.worker(), house.app.duties["reaper"]

    async def finish(fence: int) -> None:
        with suppress(LeaseLostError):
            await worker.record(job_id, fence, 2, job_id * 100 + 2)
            await worker.finish(job_id, fence)

    async def cancel() -> None:
        with suppress(FailedPreconditionError):
            await team.cancel(job_id)

    with suppress(LeaseLostError):  # on a very slow machine the reaper is first
        fence = (await worker.claim(job_id)).fence
        await worker.record(job_id, fence, 1, job_id * 100 + 1)
    async with db.duty() as tx:
        jobs = tables.jobs
        await tx.execute(
            sa.update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state == "RUNNING")
            .values(lease_expires_at=tx.after(-1.0))
        )
    await asyncio.gather(finish(fence), cancel(), reaper.once(), reaper.once())
