"""What a worker does when something goes wrong, as far as one worker can see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from contentshop.enqueue.v1 import execution_pb2
from libs.common.broker import LANES, lane_queue
from libs.common.env import SettingsError
from libs.common.errors import InvalidArgumentError
from libs.common.outcomes import POLICIES, Outcome
from services.worker.generation import GenerationError, ImageRequest
from services.worker.settings import Settings
from tests.fakes.worker_world import LEASE_SECONDS, SECRET, FakeJob
from tests.support.eventually import eventually
from tests.support.worker_house import LANE, House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.start()
    yield house
    await house.stop()


def failing(
    outcome: Outcome, *, times: int = 1000, retry_after: float | None = None, only: int = 0
) -> Callable[[ImageRequest, int], object]:
    """A script that fails the first tries of an image (or of all)."""

    def script(request: ImageRequest, tries: int) -> object:
        if tries <= times and only in {0, request.index}:
            return GenerationError(outcome, f"it was {outcome}", retry_after_seconds=retry_after)
        return b"image"

    return script


async def hang() -> bytes:
    await asyncio.Event().wait()
    return b""


def calls_for(house: House, index: int) -> int:
    return sum(request.index == index for request in house.generator.requests)


# --- outcomes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.PROMPT_BLOCKED,
        Outcome.OUTPUT_BLOCKED,
        Outcome.NO_IMAGE,
        Outcome.TEXT_ONLY,
        Outcome.BAD_INPUT,
        Outcome.INTERNAL,
    ],
)
async def test_an_image_that_fails_is_tried_as_the_table_says(
    house: House, outcome: Outcome
) -> None:
    await house.worker(failing(outcome, only=2))
    job = await house.run(7, 3)
    assert job.state == "FAILED"
    assert job.images == {1: "DONE", 2: "FAILED", 3: "DONE"}
    assert job.errors[2] == (outcome.value, f"it was {outcome}")
    assert calls_for(house, 2) == POLICIES[outcome].tries
    assert job.releases == []


async def test_a_second_try_may_succeed(house: House) -> None:
    await house.worker(failing(Outcome.OVERLOADED, times=2))
    assert (await house.run(7)).state == "SUCCEEDED"
    assert calls_for(house, 1) == 3


@pytest.mark.parametrize("outcome", [Outcome.RATE_LIMITED, Outcome.OVERLOADED, Outcome.TIMED_OUT])
async def test_faults_that_may_pass_hand_the_job_back(house: House, outcome: Outcome) -> None:
    await house.worker(failing(outcome, only=1))
    job = house.job(7, 3)
    await house.ring(7)
    await eventually(lambda: bool(job.releases))
    release = job.releases[0]
    assert release.cause == execution_pb2.RELEASE_CAUSE_BACKOFF
    assert (release.outcome, release.message) == (outcome.value, f"it was {outcome}")
    # The other images were brought to their end first.
    assert job.images == {2: "DONE", 3: "DONE"}
    assert calls_for(house, 1) == POLICIES[outcome].tries


async def test_without_attempts_left_the_image_fails_instead(house: House) -> None:
    await house.worker(failing(Outcome.OVERLOADED, only=1))
    job = await house.run(7, 2, may_hand_back=False)
    assert job.images == {1: "FAILED", 2: "DONE"}
    assert job.errors[1][0] == "OVERLOADED"


async def test_a_rate_limit_never_fails_an_image(house: House) -> None:
    await house.worker(failing(Outcome.RATE_LIMITED))
    job = house.job(7, may_hand_back=False)
    await house.ring(7)
    await eventually(lambda: bool(job.releases))
    assert job.images == {}


async def test_a_long_wait_is_handed_back_at_once(house: House) -> None:
    await house.worker(failing(Outcome.RATE_LIMITED, retry_after=90_000.0))
    job = house.job(7)
    await house.ring(7)
    await eventually(lambda: bool(job.releases))
    assert calls_for(house, 1) == 1
    assert job.releases[0].retry_after_ms == 3_600_000  # as much as enqueue takes


async def test_a_short_wait_is_waited_for(house: House) -> None:
    await house.worker(failing(Outcome.RATE_LIMITED, times=1, retry_after=0.3))
    started = house.clock.monotonic()
    assert (await house.run(7)).state == "SUCCEEDED"
    assert house.clock.monotonic() - started >= 0.3


async def test_a_call_that_hangs_is_timed_out(house: House) -> None:
    def script(_request: ImageRequest, tries: int) -> object:
        return hang() if tries == 1 else b"image"

    await house.worker(script, image_timeout_seconds=1.0)
    assert (await house.run(7)).state == "SUCCEEDED"
    assert house.generator.cancelled == 1


async def test_a_generator_with_a_bug_fails_the_image_only(house: House) -> None:
    def script(request: ImageRequest, _tries: int) -> object:
        return ValueError("a bug") if request.index == 1 else b"image"

    await house.worker(script)
    job = await house.run(7, 2)
    assert job.images == {1: "FAILED", 2: "DONE"}
    assert job.errors[1] == ("INTERNAL", "the generator failed")


async def test_an_image_that_is_no_good_is_made_again_once(house: House) -> None:
    await house.worker(lambda request, _tries: b"BAD" if request.index == 1 else b"image")
    job = await house.run(7, 2)
    assert job.errors[1][0] == "INVALID_OUTPUT"
    assert calls_for(house, 1) == 2


async def test_a_refused_key_stops_the_worker_until_it_is_taken(house: House) -> None:
    probes: list[float] = []  # the third finds that the key is taken again

    def script(request: ImageRequest, _tries: int) -> object:
        if request.job_id > 1:
            probes.append(house.clock.monotonic())
        return b"image" if len(probes) == 3 else GenerationError(Outcome.UNAUTHORIZED, "no")

    app = await house.worker(script, probe_seconds=0.3)
    first = house.job(1, 2, may_hand_back=False)
    await house.ring(1)
    await eventually(lambda: bool(first.releases))
    assert first.releases[0].outcome == "UNAUTHORIZED"
    assert not (await house.look(app)).generator_healthy
    others = [house.job(n) for n in (2, 3, 4)]
    await house.ring(2, 3)
    await house.ring(4, lane=LANES[1])
    await eventually(lambda: "SUCCEEDED" in {job.state for job in others})
    # Two probes have come and gone before, one job each, and each after its wait.
    assert sorted(len(job.releases) for job in others) == [0, 1, 1]
    assert house.enqueue.faults.calls["ClaimJob"] == 4
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(probes))
    assert (await house.look(app)).generator_healthy


# --- inputs --------------------------------------------------------------------------------


async def test_a_missing_input_is_named(house: House) -> None:
    house.assets.put_input(11, b"product")
    await house.worker()
    job = await house.run(7, 2, inputs=[("product", 11), ("background", 12)])
    assert job.errors[1] == ("BAD_INPUT", "file 12 (background) is not there any more")
    assert set(job.errors) == {1, 2}
    assert house.generator.requests == []


@pytest.mark.parametrize("damage", [b"", b"proDuct", b"product and more"])
async def test_a_damaged_input_is_named(house: House, damage: bytes) -> None:
    house.assets.put_input(11, b"product")
    (house.blob_root / "uploads" / "11").write_bytes(damage)
    await house.worker()
    job = await house.run(7, inputs=[("product", 11)])
    assert job.errors[1] == ("BAD_INPUT", "file 11 (product) is damaged")


async def test_inputs_that_cannot_be_read_for_now_hand_the_job_back(house: House) -> None:
    house.assets.put_input(11, b"product")
    house.assets.faults.away.add("ResolveImages")
    await house.worker(patience_seconds=0.2)
    job = house.job(7, inputs=[("product", 11)])
    await house.ring(7)
    await eventually(lambda: bool(job.releases))
    assert job.releases[0].outcome == "STORAGE_UNAVAILABLE"


# --- the other services ---------------------------------------------------------------------


async def test_assets_away_is_waited_for_with_the_image_in_hand(house: House) -> None:
    house.assets.faults.away.add("*")
    await house.worker()
    job = house.job(7)
    await house.ring(7)
    await eventually(lambda: house.assets.faults.calls["StoreGenerated"] >= 3)
    house.assets.faults.away.clear()
    await house.until_state(job, "SUCCEEDED")
    assert len(house.generator.requests) == 1


async def test_assets_away_for_long_hands_the_job_back(house: House) -> None:
    house.assets.faults.away.add("*")
    app = await house.worker(patience_seconds=0.2)
    job = house.job(7)
    await house.ring(7)
    await eventually(lambda: bool(job.releases))
    assert job.releases[0].outcome == "STORAGE_UNAVAILABLE"
    assert len(house.generator.requests) == 1
    assert (await house.look(app)).wasted_generations == 1


async def test_a_lost_answer_makes_no_second_image(house: House) -> None:
    for method in ("StoreGenerated", "RecordImage", "FinishJob"):
        house.assets.faults.lose_answers[method] = 1
        house.enqueue.faults.lose_answers[method] = 1
    app = await house.worker()
    job = await house.run(7, 1)
    await eventually(lambda: house.enqueue.faults.calls["FinishJob"] == 2)
    assert len(house.generator.requests) == 1
    assert job.files == {1: house.assets.stored[7, 1][0]}
    assert house.enqueue.faults.calls["RecordImage"] == 2
    assert (await house.look(app)).wasted_generations == 0


async def test_a_lost_claim_is_asked_for_again_with_the_same_id(house: House) -> None:
    house.enqueue.faults.lose_answers["ClaimJob"] = 2
    await house.worker()
    job = await house.run(7)
    assert (job.state, job.attempts, job.fence) == ("SUCCEEDED", 1, 1)


async def test_enqueue_away_holds_the_doorbell(house: House) -> None:
    house.enqueue.faults.away.add("ClaimJob")
    await house.worker()
    job = house.job(7)
    await house.ring(7)
    await eventually(lambda: house.enqueue.faults.calls["ClaimJob"] >= 3)
    assert house.broker.ready_count(lane_queue(LANE)) == 0
    house.enqueue.faults.away.clear()
    await house.until_state(job, "SUCCEEDED")
    assert house.broker.dead_letters(lane_queue(LANE)) == ()


async def test_a_held_doorbell_goes_back_when_the_worker_stops(house: House) -> None:
    house.enqueue.faults.away.add("ClaimJob")
    app = await house.worker()
    house.job(7)
    await house.ring(7)
    await eventually(lambda: house.enqueue.faults.calls["ClaimJob"] >= 2)
    await app.stop()
    assert house.broker.ready_count(lane_queue(LANE)) == 1


async def test_enqueue_away_at_the_record_is_waited_for(house: House) -> None:
    house.enqueue.faults.away.update({"RecordImage", "FinishJob"})
    await house.worker()
    job = house.job(7, 2)
    await house.ring(7)
    await eventually(lambda: house.enqueue.faults.calls["RecordImage"] >= 6)
    house.enqueue.faults.away.clear()
    await house.until_state(job, "SUCCEEDED")
    assert len(house.generator.requests) == 2


async def test_a_refused_doorbell_goes_to_the_dead_letters(house: House) -> None:
    house.enqueue.faults.refuse["ClaimJob"] = InvalidArgumentError("no such claim")
    await house.worker()
    await house.ring(7)
    await eventually(lambda: len(house.broker.dead_letters(lane_queue(LANE))) == 1)


async def test_a_refused_write_gives_the_job_back(house: House) -> None:
    house.enqueue.faults.refuse["RecordImage"] = InvalidArgumentError("no such slot")
    await house.worker()
    job = house.job(7, 2)
    await house.ring(7)
    await eventually(lambda: bool(job.releases))
    assert (job.releases[0].outcome, job.state) == ("INTERNAL", "QUEUED")
    house.enqueue.faults.refuse.clear()
    assert (await house.run(8)).state == "SUCCEEDED"


# --- leases --------------------------------------------------------------------------------


def half_hanging(request: ImageRequest, _tries: int) -> object:
    """The first image of job 1 is made, its others hang."""
    return hang() if request.job_id == 1 and request.index > 1 else b"image"


async def test_a_lease_lost_at_a_record_stops_the_job(house: House) -> None:
    started = asyncio.Event()

    async def first() -> bytes:
        await started.wait()
        return b"image"

    def script(request: ImageRequest, tries: int) -> object:
        return (
            first() if (request.job_id, request.index) == (1, 1) else half_hanging(request, tries)
        )

    app = await house.worker(script, renew_seconds=30.0)
    job = house.job(1, 3)
    await house.ring(1)
    await eventually(lambda: house.generator.running == 3)
    house.enqueue.steal(1)
    started.set()
    await eventually(lambda: house.generator.cancelled == 2)
    await _carries_on(house, job)
    assert (await house.look(app)).wasted_generations == 1


async def test_a_lease_lost_at_a_renewal_stops_the_job(house: House) -> None:
    await house.worker(half_hanging)
    job = house.job(1, 3)
    await house.ring(1)
    await eventually(lambda: house.generator.running == 2)
    house.enqueue.steal(1)
    await eventually(lambda: house.generator.cancelled == 2)
    await _carries_on(house, job)


async def test_an_ended_job_at_assets_stops_the_job(house: House) -> None:
    house.assets.ended.add(1)
    app = await house.worker(half_hanging)
    job = house.job(1, 3)
    await house.ring(1)
    await eventually(lambda: house.generator.cancelled == 2)
    await _carries_on(house, job)
    assert job.images == {}
    assert (await house.look(app)).wasted_generations == 1


async def test_a_large_upload_may_be_refused_at_its_header(house: House) -> None:
    house.assets.ended.add(1)
    await house.worker(lambda _request, _tries: b"x" * 8_000_000)
    job = house.job(1)
    await house.ring(1)
    await eventually(lambda: bool(house.assets.headers))
    await _carries_on(house, job)


async def test_a_command_in_the_middle_of_an_upload(house: House) -> None:
    house.assets.faults.held["StoreGenerated"] = asyncio.Event()
    app = await house.worker(lambda _request, _tries: b"x" * 8_000_000, renew_seconds=30.0)
    job = house.job(1)
    await house.ring(1)
    await eventually(lambda: house.assets.headers and house.enqueue.watchers)
    house.enqueue.command_stop(1)

    async def dropped() -> bool:
        return not (await house.look(app)).running

    await eventually(dropped)  # and not only at the next renewal
    house.assets.faults.held.clear()
    await _carries_on(house, job)
    assert (await house.look(app)).wasted_generations == 1
    assert job.images == {}


async def test_a_worker_that_cannot_renew_drops_its_jobs(house: House) -> None:
    await house.worker(half_hanging)
    job = house.job(1, 3)
    await house.ring(1)
    await eventually(lambda: house.generator.running == 2)
    house.enqueue.lease_seconds = 0.8
    await house.renewals(2)
    house.enqueue.faults.away.add("RenewLeases")
    await eventually(lambda: house.generator.cancelled == 2)
    house.enqueue.lease_seconds = LEASE_SECONDS
    house.enqueue.faults.away.clear()
    await _carries_on(house, job)


async def test_renewals_keep_a_long_job(house: House) -> None:
    release = asyncio.Event()

    async def image() -> bytes:
        await release.wait()
        return b"image"

    await house.worker(lambda _request, _tries: image())
    job = house.job(1)
    await house.ring(1)
    await eventually(lambda: house.generator.running == 1)
    await house.outlive_the_claims()
    await house.renewals(5)
    assert house.generator.running == 1
    release.set()
    await house.until_state(job, "SUCCEEDED")


async def _carries_on(house: House, dropped: FakeJob) -> None:
    """The dropped job is let alone, and the worker does others."""
    assert dropped.releases == []
    assert "FinishJob" not in house.enqueue.faults.calls
    assert (await house.run(99)).state == "SUCCEEDED"


# --- settings ------------------------------------------------------------------------------


def test_wrong_settings_are_named_together() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(
            auth_secret=SECRET,
            service_secret="short",
            blob_url="file:///x",
            lanes=("video.fast",),
            generator="magic",
        )
    text = str(caught.value)
    assert all(word in text for word in ("SERVICE_SECRET", "video.fast", "GENERATOR"))
