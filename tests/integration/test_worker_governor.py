"""A worker that asks for leave before it calls a provider, and says how the calls went."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from contentshop.enqueue.v1 import execution_pb2 as pb
from libs.common.errors import UnavailableError
from libs.common.outcomes import Outcome
from services.worker.generation import GenerationError
from tests.support.eventually import eventually
from tests.support.worker_house import House

MODEL = "model-1"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    house.generator.model = MODEL
    await house.start()
    yield house
    await house.stop()


class Leave:
    """Answers in turn, (calls, wait in milliseconds), then all that is asked."""

    def __init__(self, answers: Iterable[tuple[int, int]]) -> None:
        self.answers = deque(answers)

    def __call__(self, request: pb.AcquireCallsRequest) -> pb.AcquireCallsResponse:
        calls, wait = self.answers.popleft() if self.answers else (request.calls, 0)
        return pb.AcquireCallsResponse(granted=min(calls, request.calls), wait_ms=wait)


def reported(house: House) -> tuple[int, int, int]:
    """Calls that went well, that were too many, that failed."""
    reports = house.enqueue.reports
    return (
        sum(one.ok for one in reports),
        sum(one.rate_limited for one in reports),
        sum(one.failed for one in reports),
    )


async def test_a_job_asks_once_for_its_images_and_reports_them_together(house: House) -> None:
    await house.worker()
    job = await house.run(7, 4)
    assert job.state == "SUCCEEDED"
    asked = [(one.job_id, one.fence, one.model) for one in house.enqueue.asks]
    assert set(asked) == {(7, 1, MODEL)}
    assert sum(one.calls for one in house.enqueue.asks) == 4
    assert len(asked) == 1
    await eventually(lambda: reported(house) == (4, 0, 0))
    assert len(house.enqueue.reports) <= 2
    assert {one.model for one in house.enqueue.reports} == {MODEL}


async def test_words_need_leave_of_their_own_model(house: House) -> None:
    house.generator.words_model = "words-1"
    await house.worker()
    job = await house.run(7, 2, prompt="a shirt")
    assert job.enhanced == "a shirt\nsoftly lit"
    asked = [(one.job_id, one.fence, one.model, one.calls) for one in house.enqueue.asks]
    assert asked == [(7, 1, "words-1", 1), (7, 1, MODEL, 2)]
    await eventually(lambda: {one.model for one in house.enqueue.reports} == {"words-1", MODEL})
    house.generator.words = GenerationError(Outcome.RATE_LIMITED, "too many")
    assert (await house.run(8, prompt="a shirt")).enhanced == ""
    await eventually(lambda: reported(house) == (4, 1, 0))


async def test_words_that_never_come_are_told_as_a_failure(house: House) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return "late"

    house.generator.words_model = "words-1"
    house.generator.words = never
    await house.worker(prompt_timeout_seconds=1.0)
    assert (await house.run(7, prompt="a shirt")).enhanced == ""
    await eventually(lambda: reported(house) == (1, 0, 1))  # and the image


async def test_without_leave_for_words_the_original_is_used(house: House) -> None:
    house.generator.words_model = "words-1"
    house.enqueue.leave = Leave([(0, 60_000)])
    await house.worker()
    job = await house.run(7, prompt="a shirt")
    assert (job.state, job.enhanced, job.releases) == ("SUCCEEDED", "", [])
    assert house.generator.asked_words == []


async def test_a_refused_worker_waits_and_asks_again(house: House) -> None:
    house.enqueue.leave = Leave([(0, 400), (1, 300), (0, 300), (0, 300)])
    await house.worker(image_timeout_seconds=1.0)
    job = await house.run(7, 3)
    assert (job.state, job.attempts, job.releases) == ("SUCCEEDED", 1, [])
    assert len(house.generator.requests) == 3


async def test_nobody_asks_for_the_offline_generator_or_with_the_governor_off(
    house: House,
) -> None:
    await house.worker(governor=False)
    await house.run(7)
    house.generator.model = ""
    await house.worker(name="worker-2")
    await house.run(8)
    assert house.enqueue.asks == []
    assert house.enqueue.reports == []


async def test_a_long_wait_gives_the_job_back_and_burns_nothing(house: House) -> None:
    house.enqueue.leave = Leave([(1, 40_000)])
    await house.worker()
    job = house.job(7, 3)
    await house.ring(7)
    await eventually(lambda: job.releases)
    [release] = job.releases
    assert (release.cause, release.outcome) == (pb.RELEASE_CAUSE_BACKOFF, "RATE_LIMITED")
    assert 25_000 < release.retry_after_ms <= 40_000
    assert list(job.images.values()) == ["DONE"], "what there was leave for is made"
    assert len(house.enqueue.asks) == 1, "who has been told does not ask again"


async def test_whose_call_has_just_failed_comes_back_after_the_others(house: House) -> None:
    house.enqueue.leave = Leave([(1, 0), (0, 40_000)])
    fault = GenerationError(Outcome.OVERLOADED, "no")
    await house.worker(lambda _request, _tries: fault)
    job = house.job(7, 1)
    await house.ring(7)
    await eventually(lambda: job.releases)
    [release] = job.releases
    assert release.outcome == "RATE_LIMITED"
    assert 69_000 < release.retry_after_ms <= 70_000


async def test_a_canceled_job_stops_waiting_at_once(house: House) -> None:
    house.enqueue.leave = Leave([(0, 20_000)] * 10)
    app = await house.worker()
    job = house.job(7, 2)
    await house.ring(7)
    await eventually(lambda: house.enqueue.asks)
    assert len((await house.look(app)).running) == 1
    house.enqueue.command_stop(job.job_id)

    async def is_free() -> bool:
        return not (await house.look(app)).running

    await eventually(is_free)  # and not only when its wait is over
    assert house.generator.requests == []


async def test_a_lost_lease_ends_the_job(house: House) -> None:
    house.enqueue.leave = Leave([(0, 100)] * 1000)
    app = await house.worker(renew_seconds=30)
    house.job(7, 1)
    await house.ring(7)
    await eventually(lambda: house.enqueue.asks)
    house.enqueue.steal(7)

    async def is_free() -> bool:
        return not (await house.look(app)).running

    await eventually(is_free)
    assert house.generator.requests == []


async def test_the_lease_is_renewed_while_a_job_waits(house: House) -> None:
    house.enqueue.leave = Leave([(0, 2000)])
    await house.worker()
    job = house.job(7)
    await house.ring(7)
    await eventually(lambda: house.enqueue.asks)
    await house.outlive_the_claims()
    await house.until_state(job, "SUCCEEDED")
    assert job.attempts == 1


async def test_a_wait_for_one_model_holds_no_place_of_another(house: House) -> None:
    house.enqueue.leave = Leave([(0, 20_000)])
    await house.worker(images_at_once=1)
    house.job(7, 1)
    await house.ring(7)
    await eventually(lambda: house.enqueue.asks)
    house.generator.model = "model-2"
    assert (await house.run(8)).state == "SUCCEEDED"


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (Outcome.RATE_LIMITED, (0, 1, 0)),
        (Outcome.OVERLOADED, (0, 0, 1)),
        (Outcome.TIMED_OUT, (0, 0, 1)),
        (Outcome.OUTPUT_BLOCKED, (1, 0, 0)),
    ],
)
async def test_every_answer_is_reported_for_what_it_says_of_the_model(
    house: House, outcome: Outcome, counts: tuple[int, int, int]
) -> None:
    fault = GenerationError(outcome, "no", retry_after_seconds=40.0)
    await house.worker(lambda _request, _tries: fault)
    house.job(7)
    await house.ring(7)
    await eventually(lambda: reported(house)[1:] == counts[1:] and reported(house)[0] >= counts[0])
    if outcome is Outcome.RATE_LIMITED:
        assert house.enqueue.reports[0].retry_after_ms == 40_000


async def test_what_cannot_be_reported_is_dropped(house: House) -> None:
    house.enqueue.faults.refuse["ReportCalls"] = UnavailableError("away")
    await house.worker()
    assert (await house.run(7)).state == "SUCCEEDED"
    await eventually(lambda: house.enqueue.faults.calls["ReportCalls"])
    del house.enqueue.faults.refuse["ReportCalls"]
    assert (await house.run(8)).state == "SUCCEEDED"
    await eventually(lambda: reported(house)[0] >= 1)


async def test_an_enqueue_that_is_away_is_asked_again(house: House) -> None:
    house.enqueue.faults.away.add("AcquireCalls")
    await house.worker()
    job = house.job(7)
    await house.ring(7)
    await eventually(lambda: house.enqueue.faults.calls["AcquireCalls"] >= 2)
    house.enqueue.faults.away.clear()
    await house.until_state(job, "SUCCEEDED")
    assert job.attempts == 1


async def test_a_worker_that_leaves_gives_waiting_jobs_back_untouched(house: House) -> None:
    house.enqueue.leave = Leave([(0, 20_000)])
    app = await house.worker(drain_seconds=60.0)
    job = house.job(7, 2)
    await house.ring(7)
    await eventually(lambda: house.enqueue.asks)
    house.apps.remove(app)
    async with asyncio.timeout(15.0):  # and not only when its wait is over, nor the drain
        await app.stop()
    assert [release.cause for release in job.releases] == [pb.RELEASE_CAUSE_DRAIN]
