"""How a job's prompt is made better, who does it, and what stays of it."""

from __future__ import annotations

from typing import Any

import pytest

from contentshop.assets.v1 import backend_pb2
from contentshop.enqueue.v1 import enqueue_pb2, execution_pb2, job_pb2
from libs.common import env
from libs.common.env import SettingsError
from libs.common.errors import InvalidArgumentError, LeaseLostError
from services.enqueue.settings import Settings
from tests.integration.enqueue.house import House, Worker, generation, open_house
from tests.support.databases import DatabaseUrls

NONE = job_pb2.PROMPT_STRATEGY_NONE
TEMPLATE = job_pb2.PROMPT_STRATEGY_TEMPLATE
GEMINI = job_pb2.PROMPT_STRATEGY_GEMINI
BETTER = "a finer prompt,\nin two lines"


async def record(worker: Worker, job_id: int, fence: int, enhanced: str, ms: int = 12) -> list[str]:
    """The images' prompts that RecordPrompt answers with."""
    request = execution_pb2.RecordPromptRequest(
        job_id=job_id, fence=fence, enhanced=enhanced, enhance_ms=ms
    )
    answer = await worker.call("RecordPrompt", request)
    return [image.prompt for image in answer.images]


def prompts(claim: Any) -> list[str]:
    return [image.prompt for image in claim.images]


async def test_without_a_strategy_the_prompt_stays(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate()
    assert (job.prompt.strategy, job.prompt.enhanced, job.prompt.enhance_ms) == (NONE, "", 0)
    claim = await worker.claim(job.id)
    assert (claim.spec.prompt_strategy, claim.spec.prompt) == (NONE, "")
    assert prompts(claim) == [job.prompt.original]
    # It was never a worker's to enhance.
    assert await record(worker, job.id, claim.fence, BETTER) == [job.prompt.original]
    assert (await team.get(job.id)).prompt == job.prompt


async def test_a_template_adds_fixed_words_at_enqueue(house: House) -> None:
    team = house.team()
    jobs = [
        await team.generate(prompt_strategy=TEMPLATE, input={"purpose": purpose})
        for purpose in ("hero", "catalog", "hero")
    ]
    for job in jobs:
        assert job.prompt.strategy == TEMPLATE
        assert job.prompt.enhance_ms == 0
        assert job.prompt.enhanced.startswith(f"{job.prompt.original}\nLight: ")
    assert jobs[0].prompt == jobs[2].prompt
    assert jobs[0].prompt.enhanced.split("\n")[-1] != jobs[1].prompt.enhanced.split("\n")[-1]
    claim = await house.worker().claim(jobs[0].id)
    assert (claim.spec.prompt_strategy, prompts(claim)) == (NONE, [jobs[0].prompt.enhanced])


async def test_an_edit_has_words_of_its_own(house: House) -> None:
    request = enqueue_pb2.EnqueueEditRequest(
        base_image=backend_pb2.ImageRef(file_id=1), prompt_strategy=TEMPLATE
    )
    request.input.update({"instruction": "make it blue"})
    job = (await house.team().call("EnqueueEdit", request)).job
    assert "keep the crop" in job.prompt.enhanced
    assert "keep the crop" not in job.prompt.original


async def test_the_first_words_of_a_worker_stay(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(prompt_strategy=GEMINI, number_of_variations=2)
    claim = await worker.claim(job.id)
    assert claim.spec.prompt_strategy == GEMINI
    assert claim.spec.prompt == job.prompt.original
    assert all(prompt.startswith(job.prompt.original) for prompt in prompts(claim))
    made = await record(worker, job.id, claim.fence, BETTER)
    assert [prompt.startswith(f"{BETTER}\nThis is picture") for prompt in made] == [True, True]
    assert await record(worker, job.id, claim.fence, "other words", 99) == made
    kept = (await team.get(job.id)).prompt
    assert (kept.original, kept.enhanced) == (job.prompt.original, BETTER)
    assert (kept.strategy, kept.enhance_ms) == (GEMINI, 12)


async def test_the_next_worker_uses_them_and_the_last_one_may_not_write(house: House) -> None:
    team, first, second = house.team(), house.worker(), house.worker("w2")
    job = await team.generate(prompt_strategy=GEMINI)
    claim = await first.claim(job.id)
    await record(first, job.id, claim.fence, BETTER)
    await first.release(job.id, claim.fence, execution_pb2.RELEASE_CAUSE_DRAIN)
    again = await second.claim(job.id, "c2")
    assert (again.spec.prompt_strategy, again.spec.prompt) == (NONE, "")
    assert prompts(again) == [BETTER]
    with pytest.raises(LeaseLostError):
        await record(first, job.id, claim.fence, "late words")
    assert (await team.get(job.id)).prompt.enhanced == BETTER


async def test_words_that_could_not_be_found_are_not_looked_for_again(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(prompt_strategy=GEMINI)
    claim = await worker.claim(job.id)
    assert await record(worker, job.id, claim.fence, " ", 8000) == [job.prompt.original]
    kept = (await team.get(job.id)).prompt
    assert (kept.enhanced, kept.enhance_ms) == ("", 8000)
    again = await worker.claim(job.id)  # the answer was lost, say
    assert (again.spec.prompt_strategy, prompts(again)) == (NONE, [job.prompt.original])


async def test_a_service_may_have_a_strategy_of_its_own(urls: DatabaseUrls) -> None:
    async with open_house(urls, PROMPT_STRATEGY="template") as house:
        team = house.team()
        assert (await team.generate()).prompt.strategy == TEMPLATE
        assert (await team.generate(prompt_strategy=NONE)).prompt.strategy == NONE


async def test_an_unknown_strategy_is_refused_by_name(house: House) -> None:
    team = house.team()
    edit = enqueue_pb2.EnqueueEditRequest(base_image=backend_pb2.ImageRef(file_id=1))
    edit.input.update({"instruction": "make it blue"})
    edit.prompt_strategy = 99  # type: ignore[assignment]  # an open enum
    wrong = generation()
    wrong.prompt_strategy = 99  # type: ignore[assignment]
    for method, request in (("EnqueueGeneration", wrong), ("EnqueueEdit", edit)):
        with pytest.raises(InvalidArgumentError) as refused:
            await team.call(method, request)
        assert [v.field for v in refused.value.violations] == ["prompt_strategy"]


def test_a_setting_that_is_none_is_named() -> None:
    environ = {"AUTH_SECRET": "s" * 32, "SERVICE_SECRET": "s" * 32, "PROMPT_STRATEGY": "magic"}
    with pytest.raises(SettingsError) as refused:
        env.load(Settings, environ | {"ENQUEUE_DATABASE_URL": "sqlite+aiosqlite:///x"})
    assert refused.value.problems == ["PROMPT_STRATEGY must be one of none, template, gemini"]


async def test_a_retry_is_made_of_the_same_words(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate(prompt_strategy=GEMINI)
    claim = await worker.claim(job.id)
    await record(worker, job.id, claim.fence, BETTER)
    await worker.fail(job.id, claim.fence, 1, "OUTPUT_BLOCKED")
    await worker.finish(job.id, claim.fence)
    retry = (await team.call("RetryJob", enqueue_pb2.RetryJobRequest(job_id=job.id))).job
    assert retry.prompt.enhanced == BETTER
    again = await worker.claim(retry.id, "c2")
    assert (again.spec.prompt_strategy, prompts(again)) == (NONE, [BETTER])


async def test_a_batch_has_one_strategy_for_all(house: House) -> None:
    team = house.team()
    request = enqueue_pb2.EnqueueBatchRequest()
    for file_id in (1, 2):
        request.variants.add().product_images.add(file_id=file_id)
    request.settings.prompt_strategy = TEMPLATE
    batch = (await team.call("EnqueueBatch", request)).batch
    found = [await team.get(job_id) for job_id in batch.job_ids]
    assert [job.prompt.strategy for job in found] == [TEMPLATE, TEMPLATE]
    assert all("Light: " in job.prompt.enhanced for job in found)
    request.settings.prompt_strategy = 99  # type: ignore[assignment]  # an open enum
    with pytest.raises(InvalidArgumentError) as refused:
        await team.call("EnqueueBatch", request)
    assert [v.field for v in refused.value.violations] == ["settings.prompt_strategy"]
