"""Prompts that the worker enhances, what images cost, and what goes into their provenance."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from contentshop.assets.v1 import assets_pb2
from libs.common.outcomes import Outcome
from services.worker.domain import MAX_ENHANCEMENT_CHARS
from services.worker.generation import GenerationError
from services.worker.generators.offline import OfflineGenerator
from services.worker.generators.offline_words import WORDS
from tests.support.eventually import eventually
from tests.support.worker_house import House

BLOCKED = GenerationError(Outcome.PROMPT_BLOCKED, "no", detail="SAFETY")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.start()
    yield house
    await house.stop()


def prompts(house: House) -> list[str]:
    return sorted(request.prompt for request in house.generator.requests)


async def test_a_prompt_is_enhanced_once_before_the_first_image(house: House) -> None:
    house.generator.words = " softly lit,\n\t85 mm\x07 "
    await house.worker()
    job = await house.run(7, 3, prompt="a shirt")
    assert house.generator.asked_words == ["a shirt"]
    assert job.enhanced == "a shirt\nsoftly lit, 85 mm"
    assert job.enhance_ms >= 0
    assert prompts(house) == [f"{job.enhanced} image {n}" for n in (1, 2, 3)]


async def test_what_is_settled_or_not_wanted_is_left_alone(house: House) -> None:
    await house.worker()
    await house.run(7)
    await house.run(8, prompt="a shirt", enhanced="a fine shirt")
    assert house.generator.asked_words == []
    assert house.enqueue.faults.calls["RecordPrompt"] == 0
    assert prompts(house) == ["a fine shirt image 1", "image 1"]


@pytest.mark.parametrize(
    "words",
    [BLOCKED, RuntimeError("a fault of ours"), "", " \n ", "x" * (MAX_ENHANCEMENT_CHARS + 1)],
    ids=["blocked", "fault", "empty", "blank", "too long"],
)
async def test_without_usable_words_the_original_is_used(
    house: House, words: str | Exception
) -> None:
    house.generator.words = words
    await house.worker()
    job = await house.run(7, 2, prompt="a shirt")
    assert (job.state, job.enhanced) == ("SUCCEEDED", "")
    assert prompts(house) == ["a shirt image 1", "a shirt image 2"]


async def test_a_prompt_that_takes_too_long_is_used_as_it_is(house: House) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return "late"

    house.generator.words = never
    await house.worker(prompt_timeout_seconds=0.05)
    job = await house.run(7, prompt="a shirt")
    assert (job.enhanced, prompts(house)) == ("", ["a shirt image 1"])
    assert job.enhance_ms >= 50


async def test_the_first_words_that_were_kept_are_used(house: House) -> None:
    """The answer to the first record is lost; its repeat brings what stands."""
    house.enqueue.faults.lose_answers["RecordPrompt"] = 1
    await house.worker()
    job = await house.run(7, prompt="a shirt")
    assert house.enqueue.faults.calls["RecordPrompt"] == 2
    assert len(house.generator.asked_words) == 1
    assert prompts(house) == [f"{job.enhanced} image 1"]


async def test_a_lost_lease_ends_the_job_before_its_first_image(house: House) -> None:
    gate = asyncio.Event()

    async def words() -> str:
        await gate.wait()
        return "softly lit"

    house.generator.words = words
    await house.worker(renew_seconds=30.0)
    job = house.job(7, prompt="a shirt")
    await house.ring(7)
    await eventually(lambda: house.generator.asked_words)
    house.enqueue.steal(7)
    gate.set()
    await eventually(lambda: house.enqueue.faults.calls["RecordPrompt"] == 1)
    other = await house.run(8)
    assert other.state == "SUCCEEDED"
    assert (job.enhanced, job.images, job.releases) == (None, {}, [])
    assert prompts(house) == ["image 1"]


async def test_neither_prompt_nor_words_are_logged(house: House) -> None:
    house.generator.words = "canary-words"
    with structlog.testing.capture_logs() as lines:
        await house.worker()
        await house.run(7, prompt="canary-prompt")
        house.generator.words = GenerationError(Outcome.TEXT_ONLY, "canary-message", detail="d")
        await house.run(8, prompt="canary-prompt")
    assert "prompt.not_enhanced" in {line["event"] for line in lines}
    assert "canary" not in repr(lines)


async def test_an_image_is_priced_and_its_provenance_sent(house: House) -> None:
    for file_id, data in ((11, b"shirt"), (12, b"scene")):
        house.assets.put_input(file_id, data)
    await house.worker(model_prices=("model-1=2:0.5:0.01",))  # of 1 and 2 tokens
    job = await house.run(7, inputs=[("product", 12), ("background", 11), ("product", 12)])
    assert job.usages[1].cost_micros == 2 + 1 + 10_000
    [header] = house.assets.headers
    assert (header.prompt_tokens, header.output_tokens, header.total_tokens) == (1, 2, 3)
    assert (header.cost_micros, header.prompt) == (10_003, "")

    def seen(role: str, file_id: int, data: bytes) -> assets_pb2.ProvenanceInput:
        sha256 = hashlib.sha256(data).hexdigest()
        return assets_pb2.ProvenanceInput(role=role, file_id=file_id, sha256=sha256)

    scene = seen("product", 12, b"scene")
    assert list(header.inputs) == [scene, seen("background", 11, b"shirt"), scene]


async def test_what_the_words_took_is_counted_with_the_first_image(house: House) -> None:
    await house.worker(model_prices=("model-1=2:0.5:0.01", "words-1=3:4:0"))
    job = await house.run(7, 3, prompt="a shirt")
    words, image = 10 * 3 + 20 * 4, 10_003
    assert [job.usages[n].cost_micros for n in (1, 2, 3)] == [words + image, image, image]
    assert [job.usages[n].total_tokens for n in (1, 2, 3)] == [33, 3, 3]
    assert sorted(header.cost_micros for header in house.assets.headers) == [
        image,
        image,
        words + image,
    ]


async def test_the_prompt_goes_with_the_image_where_it_is_told_to(house: House) -> None:
    await house.worker(provenance_prompt=True)
    await house.run(7, prompt="a shirt")
    assert house.assets.headers[0].prompt == "a shirt\nsoftly lit image 1"
    assert house.enqueue.jobs[7].usages[1].cost_micros == 0  # no price list


async def test_offline_words_are_the_same_for_the_same_prompt(house: House) -> None:
    generator = OfflineGenerator(clock=house.clock)
    assert await generator.enhance("a") == await generator.enhance("a")
    assert {(await generator.enhance(f"prompt {n}")).text for n in range(40)} == set(WORDS)
    await generator.close()
