"""Credits: held at enqueue, captured per image, settled at every ending, always adding up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.enqueue.v1 import credits_pb2, enqueue_pb2, execution_pb2, ops_pb2
from libs.common.db import Database
from libs.common.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    LeaseLostError,
)
from services.enqueue import tables
from services.enqueue.store import jobs, ledger
from tests.integration.enqueue.batching import cancel_batch, enqueue_batch
from tests.integration.enqueue.house import CLOCK, House, Ops, Team, Worker, open_house
from tests.support.databases import DatabaseUrls
from tests.support.fleet_team import patiently

GRANT, HOLD, CAPTURE, RELEASE = 1, 2, 3, 4
BACKOFF = execution_pb2.RELEASE_CAUSE_BACKOFF


def figures(found: credits_pb2.Credits) -> tuple[int, int, int, int]:
    """Granted, available, held, captured."""
    assert found.granted == found.available + found.held + found.captured
    return found.granted, found.available, found.held, found.captured


async def entries(team: Team, **fields: Any) -> list[tuple[int, int]]:
    """Kind and amount, oldest first."""
    return [(e.kind, e.amount) for e in reversed(await team.entries(**fields))]


async def check(ops: Ops) -> list[Any]:
    answer = await ops.call("CheckCredits", ops_pb2.CheckCreditsRequest())
    return list(answer.differences)


@pytest.fixture
async def db(urls: DatabaseUrls) -> AsyncIterator[Database]:
    """The house's database, to look behind the doors and to break things."""
    found = Database(urls.app, duty_url=urls.duty, clock=CLOCK)
    yield found
    await found.stop()


async def test_a_job_holds_captures_and_gives_back(house: House) -> None:
    team, worker, ops = house.team(), house.worker(), house.ops()
    assert figures(await ops.grant("red", 10)) == (10, 10, 0, 0)
    job = await team.generate(number_of_variations=3)
    assert (job.credits.held, job.credits.captured, job.credits.released) == (3, 0, 0)
    assert figures(await team.credits()) == (10, 7, 3, 0)

    claim = await worker.claim(job.id)
    for _ in range(2):  # an answer that was lost is asked for again, and captures nothing
        await worker.record(job.id, claim.fence, 1, 101)
    assert (await team.get(job.id)).credits.captured == 1
    assert figures(await team.credits()) == (10, 7, 3, 0)
    await worker.record(job.id, claim.fence, 2, 102)
    await worker.fail(job.id, claim.fence, 3, "OUTPUT_BLOCKED")
    for _ in range(2):
        await worker.finish(job.id, claim.fence)

    credits_of = (await team.get(job.id)).credits
    assert (credits_of.held, credits_of.captured, credits_of.released) == (3, 2, 1)
    assert figures(await team.credits()) == (10, 8, 0, 2)
    assert await entries(team) == [(GRANT, 10), (HOLD, 3), (CAPTURE, 1), (CAPTURE, 1), (RELEASE, 1)]
    assert [e.image_index for e in await team.entries(job_id=job.id)] == [0, 2, 1, 0]
    assert await check(ops) == []


async def test_every_ending_gives_back_what_was_not_used(urls: DatabaseUrls) -> None:
    async with open_house(urls, MAX_ATTEMPTS="1") as house:
        team, worker, ops = house.team(), house.worker(), house.ops()
        await ops.grant("red", 100)
        waiting = [await team.generate(number_of_variations=2) for _ in range(4)]
        canceled, used_up, gone, queued = (job.id for job in waiting)
        assert figures(await team.credits()) == (100, 92, 8, 0)
        fence = (await worker.claim(canceled)).fence
        await worker.record(canceled, fence, 1, 11)
        await team.cancel(canceled)
        await team.cancel(canceled)
        assert figures(await team.credits()) == (100, 93, 6, 1)
        fence = (await worker.claim(used_up)).fence
        await worker.release(used_up, fence, BACKOFF, outcome="TIMED_OUT")
        await team.cancel(queued)
        fence = (await worker.claim(gone)).fence
        await worker.fail(gone, fence, 1, "PROMPT_BLOCKED")
        await worker.fail(gone, fence, 2, "PROMPT_BLOCKED")
        await worker.finish(gone, fence)
        assert figures(await team.credits()) == (100, 99, 0, 1)
        for job_id in (used_up, gone, queued):
            credits_of = (await team.get(job_id)).credits
            assert (credits_of.held, credits_of.captured, credits_of.released) == (2, 0, 2)
        assert await check(ops) == []


async def test_too_few_credits_are_refused_and_nothing_is_stored(house: House) -> None:
    team = house.team()
    await house.ops().grant("red", 3)
    await team.generate(number_of_variations=2)
    with pytest.raises(FailedPreconditionError) as raised:
        await team.generate(number_of_variations=2, request_id="r1")
    assert raised.value.reason == "INSUFFICIENT_CREDITS"
    assert raised.value.metadata == {"required": "2", "remaining": "1"}
    assert figures(await team.credits()) == (3, 1, 2, 0)
    listed = await team.call("ListJobs", enqueue_pb2.ListJobsRequest())
    assert len(listed.jobs) == 1
    # Only successes are kept: with credits the same request goes through.
    await house.ops().grant("red", 1, "g2")
    job = await team.generate(number_of_variations=2, request_id="r1")
    assert job.credits.held == 2
    # And its repeat needs none.
    assert (await team.generate(number_of_variations=2, request_id="r1")).id == job.id


async def test_a_batch_holds_for_all_its_images_or_none(house: House) -> None:
    team, ops = house.team(), house.ops()
    await ops.grant("red", 7)
    with pytest.raises(FailedPreconditionError) as raised:
        await enqueue_batch(team, 4, settings={"number_of_variations": 2})
    assert raised.value.metadata == {"required": "8", "remaining": "7"}
    batch = await enqueue_batch(team, 3, settings={"number_of_variations": 2})
    assert figures(await team.credits()) == (7, 1, 6, 0)
    request = enqueue_pb2.ListJobsRequest(batch_id=batch.id)
    done = (await team.call("ListJobs", request)).jobs[-1]
    await house.worker().make_all(done.id)
    for _ in range(2):
        await cancel_batch(team, batch.id)
        assert figures(await team.credits()) == (7, 5, 0, 2)
    assert await check(ops) == []


async def test_a_retry_holds_anew_for_what_it_makes(house: House) -> None:
    team, worker, ops = house.team(), house.worker(), house.ops()
    await ops.grant("red", 4)
    job = await team.generate(number_of_variations=3)
    fence = (await worker.claim(job.id)).fence
    await worker.record(job.id, fence, 2, 100)
    for index in (1, 3):
        await worker.fail(job.id, fence, index, "NO_IMAGE")
    await worker.finish(job.id, fence)
    assert figures(await team.credits()) == (4, 3, 0, 1)
    retry = enqueue_pb2.RetryJobRequest(job_id=job.id, only_missing=True)
    again = (await team.call("RetryJob", retry)).job
    assert again.credits.held == 2
    assert figures(await team.credits()) == (4, 1, 2, 1)
    await team.cancel(again.id)
    await team.generate(number_of_variations=2)
    with pytest.raises(FailedPreconditionError) as raised:
        await team.call("RetryJob", retry)
    assert raised.value.reason == "INSUFFICIENT_CREDITS"
    assert await check(ops) == []


async def test_racing_requests_share_the_last_credits(house: House) -> None:
    """One group commit carries many: each is decided by itself, in order."""
    team, other = house.team(), house.team("blue")
    await house.ops().grant("red", 5)
    results = await asyncio.gather(
        *(patiently(team.generate) for _ in range(20)),
        *(patiently(other.generate) for _ in range(5)),
        return_exceptions=True,
    )
    refused = [r for r in results[:20] if isinstance(r, FailedPreconditionError)]
    assert len(refused) == 15
    assert {r.reason for r in refused} == {"INSUFFICIENT_CREDITS"}
    assert not any(isinstance(r, BaseException) for r in results[20:])
    assert figures(await team.credits()) == (5, 0, 5, 0)
    assert await check(house.ops()) == []


@pytest.mark.real
async def test_two_replicas_do_not_spend_a_credit_twice(postgres_templates: Any) -> None:
    urls = postgres_templates.database("enqueue")
    async with open_house(urls) as one, open_house(urls) as two:
        await one.ops().grant("red", 7)
        teams = [one.team(), two.team()]
        results = await asyncio.gather(
            *(patiently(teams[n % 2].generate) for n in range(20)), return_exceptions=True
        )
        assert sum(isinstance(r, FailedPreconditionError) for r in results) == 13
        assert figures(await teams[0].credits()) == (7, 0, 7, 0)
        assert await check(one.ops()) == []


async def test_a_cancel_beside_the_finish_settles_once(house: House) -> None:
    team, worker, ops = house.team(), house.worker(), house.ops()
    await ops.grant("red", 100)
    for _ in range(6):
        job = await team.generate(number_of_variations=2)
        fence = (await worker.claim(job.id)).fence
        await worker.record(job.id, fence, 1, job.id * 100 + 1)
        await asyncio.gather(
            _last_image(worker, job.id, fence), _canceled(team, job.id), _granted(ops, job.id)
        )
        ended = (await team.get(job.id)).credits
        assert ended.held == ended.captured + ended.released == 2
        assert (await entries(team, job_id=job.id)).count((RELEASE, ended.released)) == 1
    granted, available, held, _ = figures(await team.credits())
    assert (granted, held) == (106, 0)
    assert available <= 100
    assert await check(ops) == []


async def _last_image(worker: Worker, job_id: int, fence: int) -> None:
    with suppress(LeaseLostError):  # the cancel was first
        await worker.record(job_id, fence, 2, job_id * 100 + 2)
        await worker.finish(job_id, fence)


async def _canceled(team: Team, job_id: int) -> None:
    with suppress(FailedPreconditionError):  # the finish was first
        await team.cancel(job_id)


async def _granted(ops: Ops, number: int) -> None:
    await ops.grant("red", 1, f"race-{number}")


async def test_a_grant_is_given_once(house: House) -> None:
    ops = house.ops()
    answers = await asyncio.gather(*(patiently(lambda: ops.grant("red", 5)) for _ in range(10)))
    assert {figures(answer) for answer in answers} == {(5, 5, 0, 0)}
    with pytest.raises(AlreadyExistsError) as raised:
        await ops.grant("red", 6)
    assert raised.value.reason == "IDEMPOTENCY_KEY_REUSED"
    # The key is the team's own, and does not meet the team's keys of jobs.
    assert figures(await ops.grant("blue", 6)) == (6, 6, 0, 0)
    job = await house.team().generate(request_id="g1")
    assert figures(await ops.grant("red", 5)) == (5, 4, 1, 0)
    assert job.credits.held == 1


async def test_a_team_without_an_account_needs_no_credits(house: House) -> None:
    team, worker = house.team(), house.worker()
    assert (await team.credits()).unlimited
    job = await team.generate()
    await house.ops().grant("red", 1)
    assert not (await team.credits()).unlimited
    # What was enqueued before the account is never charged.
    await worker.make_all(job.id)
    done = await team.get(job.id)
    assert not done.credits.ListFields()
    assert figures(await team.credits()) == (1, 1, 0, 0)
    assert await entries(team) == [(GRANT, 1)]
    assert await check(house.ops()) == []


async def test_where_the_service_says_so_a_team_without_an_account_has_none(
    urls: DatabaseUrls,
) -> None:
    async with open_house(urls, TEAMS_WITHOUT_ACCOUNT="none") as house:
        team = house.team()
        assert await team.credits() == credits_pb2.Credits()
        with pytest.raises(FailedPreconditionError) as raised:
            await team.generate()
        assert raised.value.metadata == {"required": "1", "remaining": "0"}
        await house.ops().grant("red", 1)
        assert (await team.generate()).credits.held == 1


async def test_the_ledger_is_paged_and_only_the_teams(house: House) -> None:
    team, ops = house.team(), house.ops()
    for number in range(3):
        await ops.grant("red", 1, f"g{number}")
    job = await team.generate()
    assert await house.team("blue").entries() == []
    assert await house.team("blue").entries(job_id=job.id) == []
    first = enqueue_pb2.ListCreditEntriesRequest(page_size=3)
    page = await team.call("ListCreditEntries", first)
    assert [e.kind for e in page.entries] == [HOLD, GRANT, GRANT]
    token = page.next_page_token
    rest = enqueue_pb2.ListCreditEntriesRequest(page_size=3, page_token=token)
    page = await team.call("ListCreditEntries", rest)
    assert ([e.kind for e in page.entries], page.next_page_token) == ([GRANT], "")
    other = enqueue_pb2.ListCreditEntriesRequest(page_token=token, job_id=job.id)
    with pytest.raises(InvalidArgumentError) as raised:
        await team.call("ListCreditEntries", other)
    assert raised.value.reason == "BAD_PAGE_TOKEN"


async def test_wrong_grants_are_named(house: House) -> None:
    ops = house.ops()
    right: dict[str, Any] = {"request_id": "g", "team": "red", "amount": 1}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 65}, "request_id"),
        ({"request_id": "ä"}, "request_id"),
        ({"team": ""}, "team"),
        ({"team": "a b"}, "team"),
        ({"team": "x" * 65}, "team"),
        ({"amount": 0}, "amount"),
        ({"amount": -5}, "amount"),
        ({"amount": 1_000_000_001}, "amount"),
        ({"note": "x" * 201}, "note"),
    ]
    for change, field in wrong:
        with pytest.raises(InvalidArgumentError) as raised:
            await ops.call("GrantCredits", ops_pb2.GrantCreditsRequest(**(right | change)))
        assert [v.field for v in raised.value.violations] == [field]
    assert (await house.team().credits()).unlimited  # no account was made


async def test_settling_again_changes_nothing(house: House, db: Database) -> None:
    team = house.team()
    await house.ops().grant("red", 5)
    job = await team.generate(number_of_variations=2)
    await team.cancel(job.id)
    async with db.duty() as tx:
        ended = await jobs.find(tx, job.id)
        assert ended is not None
        await ledger.settle(tx, [ended])
    assert figures(await team.credits()) == (5, 5, 0, 0)


async def test_what_does_not_add_up_is_told(house: House, db: Database) -> None:
    team, worker, ops = house.team(), house.worker(), house.ops()
    for name in ("red", "blue"):
        await ops.grant(name, 50)
    done, live = await team.generate(), await team.generate(number_of_variations=3)
    await worker.make_all(done.id)
    assert await check(ops) == []
    accounts, rows = tables.accounts, tables.credit_entries
    async with db.duty() as tx:
        await tx.execute(
            sa.update(accounts).where(accounts.c.team == "blue").values(available=49, captured=1)
        )
        extra = {"team": "red", "kind": "CAPTURE", "amount": 1, "image_index": 2, "note": ""}
        await tx.execute(sa.insert(rows).values(job_id=done.id, at=tx.now(), **extra))
        await tx.execute(
            sa.update(tables.jobs).where(tables.jobs.c.id == live.id).values(credits_held=2)
        )
    told = await check(ops)
    assert [(d.team, d.job_id, d.message.split()[0]) for d in told] == [
        ("blue", 0, "available"),
        ("blue", 0, "captured"),
        ("red", 0, "held"),
        ("red", 0, "captured"),
        ("red", done.id, "images"),
        ("red", live.id, "credits"),
        ("red", live.id, "credits"),
    ]
    assert told[0].message == (
        "available is 49, the ledger's grants, less holds, with releases come to 50"
    )
