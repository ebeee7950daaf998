"""Batches through the real doors: enqueue, estimate, look, cancel; all or nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2, backend_pb2
from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, execution_pb2, job_pb2
from libs.common.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from tests.integration.enqueue.batching import (
    batch_request,
    cancel_batch,
    endings,
    enqueue_batch,
    get_batch,
    make,
    outputs,
    variants,
)
from tests.integration.enqueue.house import House, Team, generation, open_house
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually

ACTIVE = batch_pb2.BATCH_STATE_ACTIVE
SUCCEEDED = batch_pb2.BATCH_STATE_SUCCEEDED
FAILED = batch_pb2.BATCH_STATE_FAILED
CANCELED = batch_pb2.BATCH_STATE_CANCELED


async def jobs_of(team: Team, batch_id: int) -> list[job_pb2.Job]:
    request = enqueue_pb2.ListJobsRequest(batch_id=batch_id, page_size=200)
    return list((await team.call("ListJobs", request)).jobs)


async def refusal(team: Team, request: Any, method: str = "EnqueueBatch") -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as caught:
        await team.call(method, request)
    return caught.value


async def test_a_batch_is_one_job_per_variant(house: House) -> None:
    team = house.team()
    other = await team.generate()
    batch = await enqueue_batch(
        team,
        3,
        settings={
            "model_image": {"file_id": 5},
            "positive_images": [{"file_id": 6}],
            "style_appendix": "warm",
            "number_of_variations": 2,
            "priority": 7,
            "destination": "shop",
            "quality": job_pb2.QUALITY_HIGH,
        },
    )
    assert (batch.name, batch.state) == ("spring", ACTIVE)
    assert (batch.jobs.total, batch.jobs.queued) == (3, 3)
    assert (batch.images.total, batch.images.pending) == (6, 6)
    assert not batch.HasField("finish_time")
    assert await get_batch(team, batch.id) == batch

    jobs = [await team.get(job_id) for job_id in batch.job_ids]
    assert [job.variant_index for job in jobs] == [1, 2, 3]
    assert [job.variant for job in jobs] == ["colour-0", "colour-1", "colour-2"]
    assert [job.source_task_id for job in jobs] == ["task-0", "task-1", "task-2"]
    assert {(job.batch_id, job.destination, job.priority) for job in jobs} == {
        (batch.id, "shop", 7)
    }
    assert [list(job.product_image_file_ids) for job in jobs] == [[1], [2], [3]]
    assert {job.model_image_file_id for job in jobs} == {5}
    assert all("warm" in job.prompt.original for job in jobs)
    assert [job.id for job in await jobs_of(team, batch.id)] == sorted(batch.job_ids, reverse=True)
    assert other.id not in batch.job_ids
    # One call for all; what the variants share stands in it once; each job pins its own.
    call = house.assets.calls[-1]
    assert [ref.file_id for ref in call.refs] == [1, 5, 6, 2, 3]
    assert [list(pins.refs) for pins in call.pins] == [[0, 1, 2], [3, 1, 2], [4, 1, 2]]
    assert len({pins.pin_token for pins in call.pins}) == 3
    assert not call.pin_token
    events = await team.events(batch.job_ids[0])
    assert events[0].kind == job_pb2.JOB_EVENT_KIND_QUEUED


async def test_a_hundred_variants_in_one_call(house: House) -> None:
    team = house.team()
    await team.generate()
    begun = time.monotonic()
    batch = await enqueue_batch(team, 100, settings={"number_of_variations": 4})
    print(f"a batch of 100 variants: {(time.monotonic() - begun) * 1000:.0f} ms")  # noqa: T201 - a figure to look at
    assert (batch.jobs.total, batch.images.total) == (100, 400)
    assert len(house.assets.calls) == 2
    jobs = await jobs_of(team, batch.id)
    assert len({job.id for job in jobs}) == 100
    live = [job for job in jobs if job.HasField("admit_time")]
    assert len(live) == 2  # beside the job that was there


@pytest.mark.parametrize("method", ["EnqueueBatch", "EstimateBatch"])
async def test_every_wrong_field_is_named_and_nothing_stored(house: House, method: str) -> None:
    team = house.team()

    def request(**fields: Any) -> Any:
        made = batch_request(**fields)
        if method == "EnqueueBatch":
            return made
        return enqueue_pb2.EstimateBatchRequest(
            name=made.name, variants=made.variants, settings=made.settings
        )

    many = variants(18)
    many[17]["product_images"] = [{"file_id": 1}, {"file_id": 2}, {"file_id": 99}]
    many[3]["product_images"] = [{"upload_url": "/api/uploads/98/file"}]
    many[4]["product_images"] = [{"upload_url": "http://elsewhere/x.png"}]
    found = await refusal(
        team, request(variants=many, settings={"model_image": {"file_id": 97}}), method
    )
    assert {v.field: v.reason for v in found.violations} == {
        "variants[17].product_images[2]": "IMAGE_NOT_FOUND",
        "variants[3].product_images[0]": "IMAGE_NOT_FOUND",
        "variants[4].product_images[0]": "IMAGE_NOT_AN_UPLOAD",
        "settings.model_image": "IMAGE_NOT_FOUND",
    }

    calls = len(house.assets.calls)
    many = variants(6)
    many[0]["product_images"] = []
    many[1]["product_images"] = [{"file_id": 1}] * 5
    many[2]["product_images"] = [{}]
    many[3]["variant"] = "colour-4"
    many[5]["product"] = "x" * 201
    settings: dict[str, Any] = {
        "quality": 99,
        "number_of_variations": 11,
        "priority": 101,
        "schema_key": "no.such",
        "template_name": "\x00",
        "negative_images": [{"file_id": 1}] * 3,
        "background_image": {"file_id": -1},
        "moodboard_id": -1,
    }
    found = await refusal(team, request(name="n" * 201, variants=many, settings=settings), method)
    assert sorted({v.field for v in found.violations}) == [
        "name",
        "settings.background_image",
        "settings.moodboard_id",
        "settings.negative_images",
        "settings.number_of_variations",
        "settings.priority",
        "settings.quality",
        "settings.schema_key",
        "settings.template_name",
        "variants[0].product_images",
        "variants[1].product_images",
        "variants[2].product_images[0]",
        "variants[4].variant",
        "variants[5].product",
    ]
    inputs = request()
    inputs.settings.input.update({"purpose": "nonsense", "colour": "red"})
    found = await refusal(team, inputs, method)
    assert {v.field for v in found.violations} == {
        "settings.input.purpose",
        "settings.input.colour",
    }
    for count, reason in ((0, "INVALID_ARGUMENT"), (101, "BATCH_TOO_LARGE")):
        found = await refusal(team, request(variants=[{}] * count), method)
        assert (found.reason, [v.field for v in found.violations]) == (reason, ["variants"])
    assert len(house.assets.calls) == calls
    assert (await team.call("ListBatches", enqueue_pb2.ListBatchesRequest())).batches == []
    assert (await team.call("ListJobs", enqueue_pb2.ListJobsRequest())).jobs == []


async def test_a_request_id_makes_one_batch(house: House) -> None:
    team = house.team()
    first, second = await asyncio.gather(*(enqueue_batch(team, request_id="r1") for _ in range(2)))
    assert first.id == second.id
    await cancel_batch(team, first.id)
    house.assets.files["red"].clear()  # what no longer passes made its batch before
    again = await enqueue_batch(team, request_id="r1")
    assert (again.id, again.state) == (first.id, CANCELED)
    with pytest.raises(AlreadyExistsError) as caught:
        await enqueue_batch(team, request_id="r1", name="autumn")
    assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"
    # Another team's key of that name is its own.
    assert (await enqueue_batch(house.team("blue"), request_id="r1")).id != first.id


async def test_a_full_queue_refuses_the_whole_batch(urls: DatabaseUrls) -> None:
    async with open_house(urls, QUEUED_JOBS_PER_TEAM="5") as house:
        team = house.team()
        first = await enqueue_batch(team, 5)  # three of them are live
        for call in (enqueue_batch(team, 4), team.call("EstimateBatch", _estimate(4))):
            with pytest.raises(ResourceExhaustedError) as caught:
                await call
            assert caught.value.reason == "QUEUE_FULL"
        assert len((await team.call("ListBatches", enqueue_pb2.ListBatchesRequest())).batches) == 1
        assert (await enqueue_batch(team, 3)).id > first.id


def _estimate(count: int, **fields: Any) -> enqueue_pb2.EstimateBatchRequest:
    made = batch_request(count, **fields)
    return enqueue_pb2.EstimateBatchRequest(
        name=made.name, variants=made.variants, settings=made.settings
    )


async def test_an_estimate_writes_nothing(urls: DatabaseUrls) -> None:
    async with open_house(urls, TEAMS_WITHOUT_ACCOUNT="none") as house:
        team = house.team()
        four = _estimate(4, settings={"number_of_variations": 2})
        found = await team.call("EstimateBatch", four)
        assert (found.jobs, found.images, found.required_credits) == (4, 8, 8)
        assert (found.available_credits, found.enough_credits) == (0, False)
        assert found.estimated_seconds == 0
        call = house.assets.calls[-1]
        assert not call.pins
        assert not call.pin_token
        with pytest.raises(FailedPreconditionError) as caught:
            await enqueue_batch(team, 4, settings={"number_of_variations": 2})
        assert caught.value.reason == "INSUFFICIENT_CREDITS"
        assert caught.value.metadata == {"required": "8", "remaining": "0"}
        assert (await team.call("ListJobs", enqueue_pb2.ListJobsRequest())).jobs == []
        await house.ops().grant("red", 9)
        found = await team.call("EstimateBatch", four)
        assert (found.available_credits, found.enough_credits) == (9, True)
        job = await team.generate()
        await make(house, job.id)
        found = await team.call("EstimateBatch", four)
        assert found.estimated_seconds > 0
        assert (await team.call("ListBatches", enqueue_pb2.ListBatchesRequest())).batches == []


async def test_the_counts_follow_the_jobs(house: House) -> None:
    team = house.team()
    heard = await endings(house)
    batch = await enqueue_batch(team, 3, settings={"number_of_variations": 2})
    one, two, three = batch.job_ids
    await make(house, one)
    await make(house, two, failing={2})
    await house.worker().claim(three, "c3")
    batch = await get_batch(team, batch.id)
    assert batch.state == ACTIVE
    assert (batch.jobs.succeeded, batch.jobs.failed, batch.jobs.running) == (1, 1, 1)
    assert (batch.images.done, batch.images.failed, batch.images.pending) == (3, 1, 2)
    assert batch.usage.total_tokens == 9
    await team.cancel(three)
    batch = await get_batch(team, batch.id)
    assert (batch.state, batch.images.canceled) == (FAILED, 2)
    assert batch.HasField("finish_time")
    await eventually(lambda: set(heard.heard) == {one, two, three})
    message = heard.heard[two]
    assert (message.batch_id, message.batch_name, message.variant_index) == (batch.id, "spring", 2)
    assert (message.variant, message.product) == ("colour-1", "shirt-1")


async def test_a_batch_whose_jobs_all_succeed(house: House) -> None:
    team = house.team()
    batch = await enqueue_batch(team, 2)
    for job_id in batch.job_ids:
        await make(house, job_id)
    assert (await get_batch(team, batch.id)).state == SUCCEEDED
    with pytest.raises(FailedPreconditionError) as caught:
        await cancel_batch(team, batch.id)
    assert caught.value.reason == "BATCH_TERMINAL"
    said = await outputs(house, "red", batch.id)
    assert (said.name, said.ended, said.finish_time_ms > 0) == ("spring", True, True)
    assert [(v.variant_index, v.variant) for v in said.variants] == [
        (1, "colour-0"),
        (2, "colour-1"),
    ]
    assert [[(o.index, o.file_id) for o in v.outputs] for v in said.variants] == [
        [(1, job_id * 100 + 1)] for job_id in batch.job_ids
    ]


async def test_canceling_a_batch_stops_every_job_at_once(house: House) -> None:
    team, worker = house.team(), house.worker()
    stops = worker.client.stream(
        worker.stub.WatchWorker, execution_pb2.WatchWorkerRequest(worker=worker.name)
    )
    assert (await anext(stops)).HasField("heartbeat")
    batch = await enqueue_batch(team, 5)
    done, running = batch.job_ids[:2]
    await make(house, done)
    fence = (await worker.claim(running)).fence
    after = await team.generate()  # waits behind the batch
    heard = await endings(house)
    batch = await cancel_batch(team, batch.id)
    assert (batch.state, batch.jobs.canceled, batch.jobs.succeeded) == (CANCELED, 4, 1)
    stop = (await anext(stops)).stop
    assert (stop.job_id, stop.fence) == (running, fence)
    assert (await team.get(after.id)).HasField("admit_time")
    for job_id in batch.job_ids[1:]:
        assert (await team.events(job_id))[-1].kind == job_pb2.JOB_EVENT_KIND_CANCELED
        assert (await team.get(job_id)).images[0].state == job_pb2.IMAGE_STATE_CANCELED
    await eventually(lambda: set(heard.heard) == set(batch.job_ids))
    assert await cancel_batch(team, batch.id) == batch


async def test_a_kept_moodboard_is_taken_as_it_stands(house: House) -> None:
    team = house.team()
    house.assets.moodboards[8] = assets_pb2.MoodboardContent(
        positive_file_ids=[11, 12],
        negative_file_ids=[13],
        background_file_id=14,
        model_file_id=15,
        style_appendix="moody",
    )
    job = await team.generate(moodboard={"moodboard_id": 8}, model_image={"file_id": 2})
    house.assets.moodboards[8] = assets_pb2.MoodboardContent(style_appendix="other")
    job = await team.get(job.id)
    assert job.moodboard_id == 8
    assert list(job.moodboard_snapshot.positive_file_ids) == [11, 12]
    assert list(job.moodboard_snapshot.negative_file_ids) == [13]
    assert job.moodboard_snapshot.style_appendix == "moody"
    assert "moody" in job.prompt.original
    # The request's own model, the moodboard's background; in the order that prompts count.
    claim = await house.worker().claim(job.id)
    assert [(i.role, i.file_id) for i in claim.spec.inputs] == [
        ("product", 1),
        ("model", 2),
        ("background", 14),
        ("moodboard", 11),
        ("moodboard", 12),
        ("avoid", 13),
    ]
    batch = await enqueue_batch(team, 2, settings={"moodboard_id": 8})
    assert (await team.get(batch.job_ids[1])).moodboard_snapshot.style_appendix == "other"


async def test_a_moodboard_is_a_kept_one_or_the_request_s_own(house: House) -> None:
    team = house.team()
    house.assets.moodboards[8] = assets_pb2.MoodboardContent()
    for own in ({"style_appendix": "x"}, {"positive_images": [{"file_id": 1}]}):
        moodboard = {"moodboard_id": 8, **own}
        found = await refusal(team, generation(moodboard=moodboard), "EnqueueGeneration")
        assert [v.field for v in found.violations] == ["moodboard.moodboard_id"]
        found = await refusal(team, batch_request(settings=moodboard))
        assert [v.field for v in found.violations] == ["settings.moodboard_id"]
    for request, method, field, reason in (
        (
            generation(moodboard={"moodboard_id": 9}),
            "EnqueueGeneration",
            "moodboard.moodboard_id",
            "MOODBOARD_NOT_FOUND",
        ),
        (
            batch_request(settings={"moodboard_id": 9}),
            "EnqueueBatch",
            "settings.moodboard_id",
            "MOODBOARD_NOT_FOUND",
        ),
        (generation(folder_id=9), "EnqueueGeneration", "folder_id", "FOLDER_NOT_FOUND"),
    ):
        found = await refusal(team, request, method)
        assert [(v.field, v.reason) for v in found.violations] == [(field, reason)]


async def test_a_folder_is_kept_and_told_at_the_end(house: House) -> None:
    team = house.team()
    house.assets.folders.add(4)
    heard = await endings(house)
    job = await team.generate(folder_id=4)
    edit = enqueue_pb2.EnqueueEditRequest(base_image=backend_pb2.ImageRef(file_id=1), folder_id=4)
    edit.input.update({"instruction": "brighter"})
    edited = (await team.call("EnqueueEdit", edit)).job
    assert (job.folder_id, edited.folder_id) == (4, 4)
    await team.cancel(job.id)
    await eventually(lambda: job.id in heard.heard)
    assert (heard.heard[job.id].folder_id, heard.heard[job.id].batch_id) == (4, 0)


async def test_more_references_than_the_model_takes_are_refused(urls: DatabaseUrls) -> None:
    async with open_house(urls, MAX_REFERENCES_FAST="3", MAX_REFERENCES_HIGH="4") as house:
        team = house.team()
        house.assets.moodboards[8] = assets_pb2.MoodboardContent(positive_file_ids=[11, 12, 13])
        two = [{"file_id": 1}, {"file_id": 2}]
        four: dict[str, Any] = {
            "product_images": two,
            "model_image": {"file_id": 3},
            "background_image": {"file_id": 4},
        }
        found = await refusal(team, generation(**four), "EnqueueGeneration")
        assert [(v.field, v.reason) for v in found.violations] == [
            ("background_image.file_id", "TOO_MANY_REFERENCES")
        ]
        assert house.assets.calls == []
        await team.generate(**four, quality=job_pb2.QUALITY_HIGH)
        settings = {"model_image": {"file_id": 3}, "background_image": {"file_id": 4}}
        found = await refusal(
            team, batch_request(variants=[{"product_images": two}] * 2, settings=settings)
        )
        assert [v.field for v in found.violations] == ["settings.background_image"]
        found = await refusal(team, batch_request(settings={"moodboard_id": 8}))
        assert [v.field for v in found.violations] == ["settings.moodboard_id"]
        assert (await team.call("ListBatches", enqueue_pb2.ListBatchesRequest())).batches == []


async def test_a_page_of_jobs_with_long_texts_ends_early(house: House) -> None:
    """A client takes messages of 4 MiB; two hundred of these jobs are more."""
    team = house.team("wordy")
    words = {"custom_instructions": "衣" * 2000, "style_appendix": "衣" * 1000}
    for number in range(2):
        settings = {"input": words, "style_appendix": "衣" * 1000, "number_of_variations": 10}
        await enqueue_batch(team, 100, name=f"{number}", settings=settings)
    found: list[int] = []
    token, pages = "", 0
    while pages == 0 or token:
        request = enqueue_pb2.ListJobsRequest(page_size=200, page_token=token)
        page = await team.call("ListJobs", request)
        assert 2**21 < page.ByteSize() < 2**22 or not page.next_page_token
        found += [job.id for job in page.jobs]
        token, pages = page.next_page_token, pages + 1
    assert pages > 1
    assert len(found) == 200
    assert found == sorted(set(found), reverse=True)


async def test_batches_are_listed_in_pages(house: House) -> None:
    team = house.team()
    made = [(await enqueue_batch(team, 1, name=f"b{n}")).id for n in range(5)]
    await enqueue_batch(house.team("blue"), 1)
    found, token = [], ""
    while True:
        request = enqueue_pb2.ListBatchesRequest(page_size=2, page_token=token)
        page = await team.call("ListBatches", request)
        found += [batch.id for batch in page.batches]
        assert all(batch.jobs.total == 1 for batch in page.batches)
        token = page.next_page_token
        if not token:
            break
        taken = enqueue_pb2.ListBatchesRequest(page_size=2, page_token=token)
        with pytest.raises(InvalidArgumentError) as caught:
            await house.team("blue").call("ListBatches", taken)
        assert caught.value.reason == "BAD_PAGE_TOKEN"
    assert found == made[::-1]


@contextmanager
def statements() -> Iterator[list[str]]:
    """What this process asks about batches meanwhile."""
    seen: list[str] = []

    def on_execute(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT") and "batch" in statement.partition("FROM")[2]:
            seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", on_execute)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", on_execute)


async def test_many_batches_are_read_by_as_many_queries_as_one(urls: DatabaseUrls) -> None:
    asked = []
    # No duty looks for old batches beside it.
    async with open_house(urls, RETENTION_JOBS_DAYS="0") as house:
        team = house.team()
        for more in (1, 3):
            for _ in range(more):
                await enqueue_batch(team, 5)
            with statements() as seen:
                found = await team.call("ListBatches", enqueue_pb2.ListBatchesRequest())
            asked.append((len(found.batches), len(seen)))
    assert asked == [(1, 5), (4, 5)]  # the page's ids, the rows, the counts, the jobs, the usage


async def test_another_team_s_batch_is_not_there(house: House) -> None:
    red, blue = house.team(), house.team("blue")
    batch = await enqueue_batch(red, 1)
    for batch_id in (batch.id, 10**9):
        for method, request in (
            ("GetBatch", enqueue_pb2.GetBatchRequest(batch_id=batch_id)),
            ("CancelBatch", enqueue_pb2.CancelBatchRequest(batch_id=batch_id)),
            ("RetryBatch", enqueue_pb2.RetryBatchRequest(batch_id=batch_id)),
        ):
            with pytest.raises(NotFoundError):
                await blue.call(method, request)
        with pytest.raises(NotFoundError):
            await outputs(house, "blue", batch_id)
    assert await jobs_of(blue, batch.id) == []
    assert (await get_batch(red, batch.id)).state == ACTIVE
    wrong: list[tuple[str, Any]] = [
        ("GetBatch", enqueue_pb2.GetBatchRequest()),
        ("CancelBatch", enqueue_pb2.CancelBatchRequest(batch_id=-1)),
        ("RetryBatch", enqueue_pb2.RetryBatchRequest()),
        ("ListJobs", enqueue_pb2.ListJobsRequest(batch_id=-1)),
    ]
    for method, request in wrong:
        found = await refusal(red, request, method)
        assert [v.field for v in found.violations] == ["batch_id"]
