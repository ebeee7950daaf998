"""The database is slow, frozen, locked, without connections or room, or cut in the COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.errors import (
    AbortedError,
    ContentshopError,
    ResourceExhaustedError,
    UnavailableError,
)
from tests.integration.enqueue.house import Team, open_house
from tests.support.databases import DatabaseUrls, PostgresTemplates
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy

pytestmark = pytest.mark.real
SUCCEEDED = job_pb2.JOB_STATE_SUCCEEDED


@pytest.fixture
def urls(postgres_templates: PostgresTemplates) -> DatabaseUrls:
    """PostgreSQL alone: SQLite has no network, no pool to run out and no other clients."""
    return postgres_templates.database("enqueue")


async def error_of(call: Any) -> ContentshopError:
    """What a call is refused with; it must say when to come back."""
    with pytest.raises(ContentshopError) as caught:
        await call
    assert caught.value.retry_after_seconds
    return caught.value


async def elsewhere(urls: DatabaseUrls, server: PostgresServer) -> psycopg.AsyncConnection[Any]:
    """A superuser's connection, with a transaction open."""
    database = make_url(urls.app).database
    assert database
    return await psycopg.AsyncConnection.connect(server.superuser_dsn(database))


async def jobs_of(team: Team) -> list[int]:
    return [job.id for job in (await team.call("ListJobs", enqueue_pb2.ListJobsRequest())).jobs]


SLEEPER = """
CREATE FUNCTION sleeper() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN PERFORM pg_sleep(9); RETURN NEW; END';
CREATE TRIGGER sleeper BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION sleeper();
"""
ASLEEP = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


async def test_without_a_free_connection_calls_are_told_to_come_back(
    urls: DatabaseUrls, postgres_server: PostgresServer
) -> None:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(urls, ENQUEUE_POOL_SIZE="2"))
        teams = [house.team(name) for name in ("red", "blue")]
        jobs = [await team.generate() for team in teams]
        other = await stack.enter_async_context(await elsewhere(urls, postgres_server))
        await other.set_autocommit(True)
        await other.execute(SLEEPER)
        held = asyncio.gather(
            *(team.cancel(job.id) for team, job in zip(teams, jobs, strict=True)),
            return_exceptions=True,
        )

        async def both_sleep() -> bool:
            return await (await other.execute(f"SELECT count(*) {ASLEEP}")).fetchone() == (2,)

        await eventually(both_sleep)
        busy = await error_of(teams[0].get(jobs[0].id))
        assert (type(busy), busy.reason) == (UnavailableError, "DATABASE_BUSY")
        await other.execute(f"SELECT pg_cancel_backend(pid) {ASLEEP}")
        assert {type(end) for end in await held} <= {UnavailableError, job_pb2.Job}
        assert (await teams[0].get(jobs[0].id)).id == jobs[0].id


async def test_a_frozen_database_holds_up_no_more_calls_than_there_are_places(
    urls: DatabaseUrls, postgres_server: PostgresServer
) -> None:
    async with open_house(urls, MAX_UNARY="4") as house:
        team = house.team()
        job = await team.generate()
        postgres_server.pause()
        try:
            asked = [asyncio.ensure_future(team.get(job.id)) for _ in range(20)]  # noqa: TID251 - awaited below
            await eventually(lambda: sum(one.done() for one in asked) >= 16)
        finally:
            postgres_server.resume()
        ends = await asyncio.gather(*asked, return_exceptions=True)
        busy = [end for end in ends if isinstance(end, ResourceExhaustedError)]
        assert len(busy) >= 12  # the others were given up, or answered by the thawed database
        assert {(end.reason, bool(end.retry_after_seconds)) for end in busy} == {
            ("SERVER_BUSY", True)
        }

        async def answers() -> bool:
            return (await team.get(job.id)).id == job.id

        await _until_it_answers(answers)


async def _until_it_answers(call: Any) -> None:
    async def answered() -> bool:
        try:
            return bool(await call())
        except (UnavailableError, ResourceExhaustedError):
            return False

    await eventually(answered, timeout_seconds=30)


async def test_a_locked_table_ends_calls_and_not_the_service(
    urls: DatabaseUrls, postgres_server: PostgresServer
) -> None:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(urls))
        team = house.team()
        job = await team.generate()
        other = await stack.enter_async_context(await elsewhere(urls, postgres_server))
        await other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        ends = await asyncio.gather(
            error_of(team.get(job.id)),
            error_of(team.cancel(job.id)),
            error_of(team.generate(request_id="locked-out")),
        )
        assert {type(end) for end in ends} == {AbortedError}
        await other.rollback()
        made = await team.generate(request_id="locked-out")
        assert sorted(await jobs_of(team)) == [job.id, made.id]


@asynccontextmanager
async def behind_a_proxy(urls: DatabaseUrls) -> AsyncIterator[tuple[TcpProxy, DatabaseUrls]]:
    """The way to the database through a proxy."""
    target = make_url(urls.app)
    assert target.host
    assert target.port
    async with TcpProxy(target.host, target.port) as proxy:
        through = {
            role: make_url(getattr(urls, role))
            .set(port=proxy.port)
            .render_as_string(hide_password=False)
            for role in ("app", "duty")
        }
        yield proxy, replace(urls, **through)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_commit_nobody_heard_of_is_found_out_by_its_key(
    urls: DatabaseUrls, *, arrives: bool
) -> None:
    async with (
        behind_a_proxy(urls) as (proxy, through),
        open_house(through, LEASE_SECONDS="600") as house,
    ):
        team, worker = house.team(), house.worker()
        await house.ops().grant("red", 10)
        proxy.cut_at(b"COMMIT", after=b"who-knows", delivered=arrives)
        unknown = await error_of(team.generate(request_id="who-knows"))
        assert isinstance(unknown, UnavailableError)
        assert len(await jobs_of(team)) == arrives
        job = await team.generate(request_id="who-knows")
        assert await jobs_of(team) == [job.id]
        assert (await team.credits()).held == 1

        proxy.cut_at(b"COMMIT", after=b"claim-unknown", delivered=arrives)
        assert isinstance(await error_of(worker.claim(job.id, "claim-unknown")), UnavailableError)
        assert (await team.get(job.id)).attempts == arrives
        assert (await worker.claim(job.id, "claim-unknown")).fence == 1
        await worker.record(job.id, 1, 1, 101)
        await worker.finish(job.id, 1)
        assert (await team.get(job.id)).state == SUCCEEDED


async def test_a_slow_database_costs_no_lease(urls: DatabaseUrls) -> None:
    async with behind_a_proxy(urls) as (proxy, through), open_house(through) as house:
        team, worker = house.team(), house.worker()
        job = await team.generate()
        proxy.delay(30)  # each way: every statement takes sixty milliseconds more
        fence = (await worker.claim(job.id)).fence
        for _ in range(3):
            assert not (await worker.renew({job.id: fence})).lost_job_ids
        await worker.record(job.id, fence, 1, 101)
        await worker.finish(job.id, fence)
        ended = await team.get(job.id)
        assert (ended.state, ended.lost_workers) == (SUCCEEDED, 0)
        proxy.delay(0)


async def test_a_database_without_room_for_its_log_comes_back_whole() -> None:
    """No file of it may be written past 64 KiB: to PostgreSQL as good as a full disk."""
    with PostgresServer(fsync=False) as server:
        urls = PostgresTemplates(server).database("enqueue")
        async with open_house(urls) as house:
            team = house.team()
            job = await team.generate(request_id="before")
            await asyncio.to_thread(server.limit_files, 64 * 1024)
            assert isinstance(await error_of(team.generate(request_id="none")), UnavailableError)

            async def refused() -> bool:
                try:
                    await team.get(job.id)  # a backend that lives serves, until it is told to go
                except UnavailableError:
                    return True
                return False

            await eventually(refused, what="the database is gone")
            assert "PANIC" in server.log_path.read_text()
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)

            async def answers() -> bool:
                return (await team.generate(request_id="before")).id == job.id

            await _until_it_answers(answers)
            again = await team.generate(request_id="none")
            assert sorted(await jobs_of(team)) == [job.id, again.id]
            await house.worker().make_all(again.id)
            assert (await team.get(again.id)).state == SUCCEEDED
