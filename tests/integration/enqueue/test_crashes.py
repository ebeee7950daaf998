"""enqueue dies by SIGKILL at steps of its own, and what the next one makes of what it left."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.broker import lane_queue
from libs.common.errors import UnavailableError
from tests.integration.enqueue.house import Clients, House, environment, fake_assets, open_house
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually
from tests.support.service_process import service_process

LANE = lane_queue("image_generation.fast")
QUEUED = job_pb2.JOB_STATE_QUEUED
LEASE_SECONDS = 4.0

Doing = Callable[[Clients], Awaitable[Any]]


async def die(urls: DatabaseUrls, point: str, doing: Doing, **settings: str) -> Any:
    """What `doing` has found, in an enqueue that dies at a point meanwhile or soon after."""
    async with fake_assets() as assets:
        environ = environment(urls, assets.server.port, CRASH_AT=point, **settings)
        async with service_process("enqueue", environ) as running:
            clients = Clients(running.port, assets)
            try:
                found = await doing(clients)
                assert await running.ended() == -signal.SIGKILL
            finally:
                await clients.close()
    return found


async def kinds(house: House, job_id: int) -> list[str]:
    """The events of a job, in order, by the ends of their names."""
    names = job_pb2.JobEventKind.Name
    events = await house.team().events(job_id)
    return [names(event.kind).removeprefix("JOB_EVENT_KIND_") for event in events]


async def test_dying_with_a_request_that_was_only_read_leaves_no_trace(urls: DatabaseUrls) -> None:
    async def ask(clients: Clients) -> None:
        with pytest.raises(UnavailableError):
            await clients.team().generate(request_id="once")

    await die(urls, "E1", ask)
    async with open_house(urls) as house:
        team = house.team()
        everything = enqueue_pb2.ListJobsRequest()
        assert not (await team.call("ListJobs", everything)).jobs
        job = await team.generate(request_id="once")
        assert (await team.generate(request_id="once")).id == job.id
        assert [one.id for one in (await team.call("ListJobs", everything)).jobs] == [job.id]


async def test_a_job_admitted_by_anothers_end_has_its_doorbell(urls: DatabaseUrls) -> None:
    """E7: the place and the doorbell are of one transaction, so no step lies between them."""

    async def end_the_first(clients: Clients) -> list[int]:
        team, worker = clients.team(), clients.worker()
        first, second = [(await team.generate()).id for _ in range(2)]
        assert not (await team.get(second)).HasField("admit_time")
        fence = (await worker.claim(first)).fence
        await worker.record(first, fence, 1, 101)
        with pytest.raises(UnavailableError):
            await worker.finish(first, fence)
        return [first, second]

    first, second = await die(
        urls, "E10", end_the_first, LIVE_JOBS_PER_TEAM="1", LEASE_SECONDS="600"
    )
    async with open_house(urls, LIVE_JOBS_PER_TEAM="1") as house:
        team = house.team()
        assert (await team.get(first)).state == job_pb2.JOB_STATE_SUCCEEDED
        assert await kinds(house, second) == ["QUEUED", "ADMITTED"]
        # A relay that died with rows taken leaves them to others after ten seconds.
        await eventually(lambda: house.broker.ready_count(LANE) > 0, timeout_seconds=30)
        await house.worker().make_all(second)
        assert (await team.get(second)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_what_a_dying_reaper_left_is_taken_once_by_two(urls: DatabaseUrls) -> None:
    async def claim_three(clients: Clients) -> dict[int, bool]:
        """Three jobs, and whether each claim was heard of: the reaper may be quick."""
        team, worker = clients.team(), clients.worker()
        ids = [(await team.generate()).id for _ in range(3)]
        ends = await asyncio.gather(
            *(worker.claim(job_id, f"c{job_id}") for job_id in ids), return_exceptions=True
        )
        assert {type(end) for end in ends if isinstance(end, Exception)} <= {UnavailableError}
        return {i: not isinstance(end, Exception) for i, end in zip(ids, ends, strict=True)}

    claimed = await die(urls, "E11", claim_three, LEASE_SECONDS=str(LEASE_SECONDS))
    assert any(claimed.values())
    replicas = 2 if urls.duty else 1  # an SQLite file has one
    async with AsyncExitStack() as stack:
        houses = [await stack.enter_async_context(open_house(urls)) for _ in range(replicas)]
        house = houses[0]
        team = house.team()

        async def all_taken() -> bool:
            return all([(await team.get(job_id)).state == QUEUED for job_id in claimed])

        await eventually(all_taken, timeout_seconds=30)
        for other in houses:  # two more looks of each find nothing
            await asyncio.gather(*(other.app.duties["reaper"].once() for _ in range(2)))
        for job_id, heard in claimed.items():
            assert (await kinds(house, job_id)).count("REQUEUED") in ({1} if heard else {0, 1})
            await house.worker().make_all(job_id)
            job = await team.get(job_id)
            assert (job.state, job.attempts) == (job_pb2.JOB_STATE_SUCCEEDED, 1)
