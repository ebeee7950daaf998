"""The worker with the real Gemini generator, against a stub that does everything wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from services.worker.generators.gemini import GeminiGenerator, GeminiSettings
from tests.fakes.gemini_behaviours import Behaviour
from tests.fakes.gemini_stub import GeminiStub
from tests.support.eventually import eventually
from tests.support.worker_house import House

KEY = "stub-key"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.start()
    yield house
    await house.stop()


@pytest.fixture
async def stub() -> AsyncIterator[GeminiStub]:
    async with GeminiStub(api_key=KEY, side_pixels=16) as server:
        yield server


async def gemini(house: House, stub: GeminiStub, *script: Behaviour, **settings: Any) -> Any:
    """A worker whose generator calls the stub; closed with it."""
    stub.script(*script)
    generator: Any = GeminiGenerator(GeminiSettings(api_key=KEY, base_url=stub.base_url))
    house.generator = generator
    await generator._open()  # loads the provider's library: that takes seconds on a busy machine
    return await house.worker(**settings)


async def until(check: Callable[[], bool]) -> None:
    """As eventually, for what takes several calls."""
    await eventually(check, timeout_seconds=60.0)


def error(status: int, **changes: Any) -> Behaviour:
    return Behaviour(kind="error", status=status, **changes)


@pytest.mark.parametrize(
    ("first", "calls"),
    [
        pytest.param(error(429, retry_delay="0.2s", times=1), 2, id="429"),
        pytest.param(error(500, times=2), 3, id="500 twice"),
        pytest.param(Behaviour(kind="disconnect", times=1), 2, id="disconnected"),
        pytest.param(Behaviour(kind="cut", times=1), 2, id="made, and the answer cut"),
        pytest.param(Behaviour(kind="empty", times=1), 2, id="empty once"),
        pytest.param(Behaviour(count=2), 1, id="two for one"),
    ],
)
async def test_what_passes_costs_no_attempt_and_makes_one_image(
    house: House, stub: GeminiStub, first: Behaviour, calls: int
) -> None:
    await gemini(house, stub, first)
    job = house.job(7)
    await house.ring(7)
    await until(lambda: job.state not in {"QUEUED", "RUNNING"})
    assert (job.state, job.attempts, job.images) == ("SUCCEEDED", 1, {1: "DONE"})
    assert list(house.assets.stored) == [(7, 1)]
    assert stub.count == calls


async def test_images_that_nobody_asked_for_are_counted(house: House, stub: GeminiStub) -> None:
    app = await gemini(house, stub, Behaviour(count=3, times=1))
    await house.run(7, 2)
    assert (await house.look(app)).extra_images == 2


async def test_a_hanging_call_ends_at_its_limit_and_the_lease_goes_on(
    house: House, stub: GeminiStub
) -> None:
    await gemini(house, stub, Behaviour(kind="hang", times=1), image_timeout_seconds=3.0)
    job = house.job(7)
    await house.ring(7)
    await until(lambda: stub.count >= 1)
    await house.outlive_the_claims()
    await until(lambda: job.state == "SUCCEEDED")
    assert (job.attempts, stub.count) == (1, 2)


@pytest.mark.parametrize(
    ("always", "outcome", "calls"),
    [
        pytest.param(Behaviour(kind="empty"), "NO_IMAGE", 2, id="no candidates"),
        pytest.param(Behaviour(kind="text", text="no"), "TEXT_ONLY", 2, id="text"),
        pytest.param(
            Behaviour(kind="prompt_block", reason="PROHIBITED_CONTENT"),
            "PROMPT_BLOCKED",
            1,
            id="prompt",
        ),
        pytest.param(
            Behaviour(kind="finish", reason="IMAGE_SAFETY"), "OUTPUT_BLOCKED", 1, id="output"
        ),
    ],
)
async def test_what_does_not_pass_fails_that_image_alone(
    house: House, stub: GeminiStub, always: Behaviour, outcome: str, calls: int
) -> None:
    always.match = "image 2"
    await gemini(house, stub, always)
    job = house.job(7, 3)
    await house.ring(7)
    await until(lambda: job.state == "FAILED")
    assert job.images == {1: "DONE", 2: "FAILED", 3: "DONE"}
    assert job.errors[2][0] == outcome
    assert (job.state, stub.count) == ("FAILED", 2 + calls)


@pytest.mark.parametrize(
    ("always", "outcome", "calls"),
    [
        pytest.param(error(503), "OVERLOADED", 3, id="503"),
        pytest.param(Behaviour(kind="disconnect"), "OVERLOADED", 3, id="disconnected"),
        pytest.param(error(429, retry_delay="3000s"), "RATE_LIMITED", 1, id="429 for long"),
        pytest.param(error(403), "UNAUTHORIZED", 1, id="key revoked"),
    ],
)
async def test_what_may_pass_later_hands_the_job_back(
    house: House, stub: GeminiStub, always: Behaviour, outcome: str, calls: int
) -> None:
    await gemini(house, stub, always)
    job = house.job(7)
    await house.ring(7)
    await until(lambda: bool(job.releases))
    assert (job.releases[0].outcome, job.images) == (outcome, {})
    assert stub.count == calls
