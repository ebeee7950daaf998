"""The governor through its doors: leave for calls, reports, and what people are told of it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from contentshop.enqueue.v1 import enqueue_pb2, execution_pb2, job_pb2, ops_pb2
from libs.common.errors import InvalidArgumentError, LeaseLostError
from services.enqueue.governor import FAILURES_TO_OPEN, FIRST_OPEN_SECONDS
from tests.integration.enqueue.house import House, Team, Worker, open_house
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually
from tests.support.fleet_team import patiently

MODEL = "model-1"
ONE_A_MINUTE = 1  # so low a rate that none is earned while a test runs, however slowly


async def acquire(worker: Worker, job_id: int, fence: int, calls: int = 1) -> Any:
    request = execution_pb2.AcquireCallsRequest(
        job_id=job_id, fence=fence, model=MODEL, calls=calls
    )
    return await worker.call("AcquireCalls", request)


async def report(worker: Worker, **fields: int) -> None:
    await worker.call("ReportCalls", execution_pb2.ReportCallsRequest(model=MODEL, **fields))


async def set_limit(house: House, calls_per_minute: int) -> Any:
    request = ops_pb2.SetModelLimitRequest(model=MODEL, calls_per_minute=calls_per_minute)
    return (await house.ops().call("SetModelLimit", request)).model


async def model(house: House) -> Any:
    stats = await house.ops().call("GetQueueStats", ops_pb2.GetQueueStatsRequest())
    return next((one for one in stats.models if one.model == MODEL), None)


async def explain(team: Team, job_id: int) -> Any:
    return await team.call("ExplainJob", enqueue_pb2.ExplainJobRequest(job_id=job_id))


async def claimed(house: House) -> tuple[Team, Worker, int, int]:
    """A team and a worker with a job: its id and its fence."""
    team, worker = house.team(), house.worker()
    job = await team.generate()
    return team, worker, job.id, (await worker.claim(job.id)).fence


async def test_a_model_nothing_is_known_of_takes_all_calls_and_gets_no_row(house: House) -> None:
    _, worker, job_id, fence = await claimed(house)
    for _ in range(20):
        answer = await acquire(worker, job_id, fence, 10)
        assert (answer.granted, answer.wait_ms) == (10, 0)
    await report(worker, ok=200)
    assert await model(house) is None


async def test_a_limit_is_kept_by_all_workers_together(house: House) -> None:
    _, worker, job_id, fence = await claimed(house)
    assert (await set_limit(house, ONE_A_MINUTE)).calls_per_minute_limit == ONE_A_MINUTE
    others = [house.worker(f"w{n}") for n in range(4)]
    answers = await asyncio.gather(
        *(patiently(partial(acquire, one, job_id, fence)) for one in [worker, *others] * 8)
    )
    assert sum(answer.granted for answer in answers) == 1
    refused = [answer for answer in answers if not answer.granted]
    assert all(0 < answer.wait_ms <= 60_000 for answer in refused)
    assert not (await set_limit(house, 0)).calls_per_minute
    assert (await acquire(worker, job_id, fence, 10)).granted == 10


async def test_two_replicas_share_one_rate(urls: DatabaseUrls) -> None:
    async with open_house(urls) as house, open_house(urls) as other:
        _, worker, job_id, fence = await claimed(house)
        await set_limit(house, ONE_A_MINUTE)
        there = other.worker("w2")
        answers = await asyncio.gather(
            *(patiently(partial(acquire, one, job_id, fence)) for one in [worker, there] * 20)
        )
        assert sum(answer.granted for answer in answers) == 1


async def test_a_stale_fence_is_told_so_also_after_a_good_one(house: House) -> None:
    _, worker, job_id, fence = await claimed(house)
    assert (await acquire(worker, job_id, fence)).granted == 1
    for wrong in (fence - 1, fence + 1):
        with pytest.raises(LeaseLostError):
            await acquire(worker, job_id, wrong or 99)
    drain = execution_pb2.RELEASE_CAUSE_DRAIN
    await worker.release(job_id, fence, drain)
    with pytest.raises(LeaseLostError):
        await acquire(worker, job_id, fence)
    await worker.claim(job_id, "c2")
    await set_limit(house, 60)
    with pytest.raises(LeaseLostError):
        await acquire(worker, job_id, fence)
    with pytest.raises(LeaseLostError):
        await acquire(worker, 10**9, 1)


async def test_a_429_blocks_and_slows_and_explain_says_until_when(house: House) -> None:
    team, worker, job_id, fence = await claimed(house)
    assert (await acquire(worker, job_id, fence, 10)).granted == 10
    await report(worker, ok=9, rate_limited=1, retry_after_ms=120_000)
    answer = await acquire(worker, job_id, fence)
    assert not answer.granted
    assert 60_000 < answer.wait_ms <= 120_000
    known = await model(house)
    assert 0 < known.calls_per_minute <= 5 + 1
    assert known.HasField("blocked_until")

    async def told() -> Any:
        why = await explain(team, job_id)
        return why if why.reason == enqueue_pb2.WAIT_REASON_PROVIDER_RATE else None

    why = await eventually(told)
    assert f"Job {job_id} is on worker w1 and waits for its model" in why.sentence
    assert "it may call again in " in why.sentence
    assert "0 of 1 images are done." in why.sentence
    assert why.HasField("not_before")
    assert why.state == job_pb2.JOB_STATE_RUNNING


async def test_a_failing_model_is_left_alone(house: House) -> None:
    _, worker, job_id, fence = await claimed(house)
    await report(worker, failed=FAILURES_TO_OPEN - 1)
    assert (await acquire(worker, job_id, fence)).granted == 1
    await report(worker, ok=1)
    assert (await model(house)).circuit == "CLOSED"
    await report(worker, failed=FAILURES_TO_OPEN)
    assert (await model(house)).circuit == "OPEN"
    answer = await acquire(worker, job_id, fence)
    assert not answer.granted
    assert 0 < answer.wait_ms <= FIRST_OPEN_SECONDS * 1000


async def test_a_job_put_back_for_the_rate_says_so_and_loses_no_attempt(house: House) -> None:
    team, worker, job_id, fence = await claimed(house)
    backoff = execution_pb2.RELEASE_CAUSE_BACKOFF
    answer = await worker.release(
        job_id, fence, backoff, outcome="RATE_LIMITED", message="busy", retry_after_ms=60_000
    )
    assert answer.state == job_pb2.JOB_STATE_QUEUED
    why = await explain(team, job_id)
    assert why.reason == enqueue_pb2.WAIT_REASON_PROVIDER_RATE
    assert "No attempt is lost by that." in why.sentence
    assert why.HasField("not_before")
    assert why.position == 1
    assert (await team.get(job_id)).attempts == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_id": 0},
        {"fence": 0},
        {"model": ""},
        {"model": "m" * 129},
        {"calls": 0},
        {"calls": 11},
    ],
    ids=str,
)
async def test_bad_asks(house: House, wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"job_id": 1, "fence": 1, "model": MODEL, "calls": 1}
    request = execution_pb2.AcquireCallsRequest(**(right | wrong))
    with pytest.raises(InvalidArgumentError) as refused:
        await house.worker().call("AcquireCalls", request)
    assert [v.field for v in refused.value.violations] == list(wrong)


@pytest.mark.parametrize("field", ["ok", "rate_limited", "failed", "retry_after_ms"])
async def test_bad_reports(house: House, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await report(house.worker(), **{field: -1})
    assert [v.field for v in refused.value.violations] == [field]
