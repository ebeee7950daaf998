"""One worker among fakes of enqueue and assets that are real gRPC servers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from contentshop.enqueue.v1 import execution_pb2
from contentshop.worker.v1 import worker_pb2
from libs.common import logs
from libs.common.blobs import CHUNK_BYTES
from libs.common.broker import LANES, lane_queue
from libs.common.outcomes import Outcome
from services.worker.generation import GenerationError, ImageRequest
from tests.support.eventually import eventually
from tests.support.worker_house import LANE, House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.start()
    yield house
    await house.stop()


class Gate:
    """Holds generator calls until it is opened."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def __call__(self, request: ImageRequest, _tries: int) -> object:
        return self._image(request.index)

    async def _image(self, index: int) -> bytes:
        await self.event.wait()
        return b"image %d" % index


async def test_the_images_of_a_job_are_made_at_once(house: House) -> None:
    gate = Gate()
    house.assets.put_input(11, b"product")
    house.assets.put_input(12, b"scene")
    job = house.job(7, 4, inputs=[("product", 11), ("background", 12), ("product", 11)])
    await house.worker(gate)
    await house.ring(7)
    await eventually(lambda: house.generator.running == 4)
    gate.event.set()
    await house.until_state(job, "SUCCEEDED")
    assert job.images == dict.fromkeys(range(1, 5), "DONE")
    assert {house.assets.stored[7, i][1] for i in range(1, 5)} == {
        b"image %d" % i for i in range(1, 5)
    }
    assert job.files == {i: house.assets.stored[7, i][0] for i in range(1, 5)}
    assert (job.models[1], job.usages[1].total_tokens) == ("model-1", 3)
    assert house.assets.resolved == [[11, 12, 11]]
    request = house.generator.requests[0]
    assert (request.count, request.quality, request.format) == (4, "high", "webp")
    assert (request.aspect_ratio, request.prompt[:5]) == ("3:4", "image")
    seen = [(r.role, r.file_id, r.data) for r in request.references]
    assert seen == [
        ("product", 11, b"product"),
        ("background", 12, b"scene"),
        ("product", 11, b"product"),
    ]
    # One copy of the bytes serves every image and every place.
    assert len({id(r.references[0].data) for r in house.generator.requests}) == 1
    assert request.references[0].data is request.references[2].data


async def test_large_images_go_up_in_chunks(house: House) -> None:
    size = 2 * CHUNK_BYTES + 1
    await house.worker(lambda _request, _tries: b"x" * size)
    await house.run(7)
    assert house.assets.chunks == [3]
    assert house.assets.headers[0].attempt == 1


async def test_the_doorbell_is_acked_right_after_the_claim(house: House) -> None:
    gate = Gate()
    await house.worker(gate, slots=4)
    jobs = [house.job(n) for n in (1, 2, 3)]
    # With a prefetch of 1 a later doorbell only comes when the one before is acked.
    await house.ring(1, 2, 3)
    await eventually(lambda: all(job.state == "RUNNING" for job in jobs))
    await eventually(lambda: house.generator.running == 3)
    gate.event.set()
    for job in jobs:
        await house.until_state(job, "SUCCEEDED")


async def test_full_slots_pause_every_lane_until_one_is_free(house: House) -> None:
    gate = Gate()
    app = await house.worker(gate, slots=2)
    jobs = [house.job(n) for n in range(1, 6)]
    await house.ring(1, 2, 3)
    await house.ring(4, 5, lane=LANES[1])
    await eventually(lambda: house.generator.running == 2)
    worker = await house.look(app)
    assert (len(worker.running), worker.slots, worker.generator) == (2, 2, "scripted")
    assert worker.running[0].images_in_flight == 1
    await eventually(lambda: sum(house.broker.ready_count(lane_queue(n)) for n in LANES) == 3)
    assert house.enqueue.faults.calls["ClaimJob"] == 2
    gate.event.set()
    for job in jobs:
        await house.until_state(job, "SUCCEEDED")
    assert house.generator.most_running <= 2


async def test_generator_calls_of_all_jobs_are_bounded(house: House) -> None:
    async def image() -> bytes:
        await asyncio.sleep(0.02)
        return b"image"

    await house.worker(lambda _request, _tries: image(), images_at_once=3)
    jobs = [house.job(n, 4) for n in (1, 2, 3)]
    await house.ring(1, 2, 3)
    for job in jobs:
        await house.until_state(job, "SUCCEEDED")
    assert house.generator.most_running == 3


async def test_a_command_stops_one_job_before_any_renewal(house: House) -> None:
    gate = Gate()
    app = await house.worker(gate, renew_seconds=30.0)
    stopped, other = house.job(1, 3), house.job(2)
    await house.ring(1, 2)
    await eventually(lambda: house.generator.running == 4 and house.enqueue.watchers)
    house.enqueue.command_stop(1)
    await eventually(lambda: house.generator.cancelled == 3)
    await eventually(lambda: house.generator.running == 1)
    gate.event.set()
    await house.until_state(other, "SUCCEEDED")
    assert stopped.images == {}
    assert stopped.releases == []

    async def is_free() -> bool:
        return not (await house.look(app)).running

    await eventually(is_free)


async def test_the_watch_is_opened_again(house: House) -> None:
    gate = Gate()
    await house.worker(gate, renew_seconds=30.0)
    house.job(1)
    await house.ring(1)
    await eventually(lambda: house.generator.running == 1 and house.enqueue.watchers)
    house.enqueue.watchers[0].put_nowait(None)
    await eventually(lambda: house.enqueue.faults.calls["WatchWorker"] >= 2)
    # What was said while it was gone is learned by a renewal, which follows at once.
    await eventually(lambda: bool(house.enqueue.watchers))
    house.enqueue.command_stop(1)
    await eventually(lambda: house.generator.cancelled == 1)


async def test_a_resumed_job_makes_only_what_is_missing(house: House) -> None:
    await house.worker()
    job = await house.run(7, 4, images={1: "DONE", 3: "DONE"})
    assert job.state == "SUCCEEDED"
    assert sorted(r.index for r in house.generator.requests) == [2, 4]


async def test_a_job_whose_images_are_all_done_is_only_finished(house: House) -> None:
    await house.worker()
    job = await house.run(7, 2, images={1: "DONE", 2: "DONE"}, inputs=[("product", 404)])
    assert job.state == "SUCCEEDED"
    assert house.generator.requests == []
    assert house.assets.resolved == []


@contextmanager
def said_by_the_way() -> Iterator[list[MutableMapping[str, Any]]]:
    """Log lines, those of level info too."""
    logs.configure("tests", level="info", json=False)
    try:
        with capture_logs() as lines:
            yield lines
    finally:
        logs.configure("tests", level="warning", json=False)


async def test_drain_and_resume(house: House) -> None:
    gate = Gate()
    app = await house.worker(gate)
    running, waiting = house.job(1), house.job(2)
    await house.ring(1)
    await house.until_state(running, "RUNNING")
    door = house.door(app)
    with said_by_the_way() as logged:
        answer = await door.DrainWorker(worker_pb2.DrainWorkerRequest(), metadata=house.ops())
    assert answer.worker.draining
    # It says so: jobs that wait are not told that a worker should come.
    await eventually(lambda: house.enqueue.presence and not house.enqueue.presence.lanes)
    await house.ring(2)
    gate.event.set()
    await house.until_state(running, "SUCCEEDED")
    assert waiting.state == "QUEUED"
    assert house.broker.ready_count(lane_queue(LANE)) == 1
    with said_by_the_way() as logged_later:
        resumed = await door.ResumeWorker(worker_pb2.ResumeWorkerRequest(), metadata=house.ops())
    for lines, event in ((logged, "worker.drain_asked"), (logged_later, "worker.resume_asked")):
        (line,) = (one for one in lines if one["event"] == event)
        assert (line["worker"], line["actor"]) == ("worker-1", "developer")
    assert not resumed.worker.draining
    await eventually(lambda: house.enqueue.presence and house.enqueue.presence.lanes)
    await house.until_state(waiting, "SUCCEEDED")


async def test_stopping_lets_images_in_flight_end_and_releases_the_rest(house: House) -> None:
    gate = Gate()
    app = await house.worker(gate, images_at_once=2, drain_seconds=60.0)
    job = house.job(1, 4)
    await house.ring(1)
    await eventually(lambda: house.generator.running == 2)
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(app.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        gate.event.set()
    assert sorted(job.images.values()) == ["DONE", "DONE"]
    assert len(house.generator.requests) == 2
    assert (job.state, len(job.releases)) == ("QUEUED", 1)
    assert job.releases[0].cause == execution_pb2.RELEASE_CAUSE_DRAIN
    assert house.generator.closed


async def test_stopping_releases_what_does_not_end_in_time(house: House) -> None:
    app = await house.worker(Gate(), drain_seconds=0.1)
    jobs = [house.job(1, 2), house.job(2)]
    await house.ring(1, 2)
    await eventually(lambda: house.generator.running == 3)
    await app.stop()
    assert [job.state for job in jobs] == ["QUEUED", "QUEUED"]
    assert [len(job.releases) for job in jobs] == [1, 1]
    assert house.generator.cancelled == 3


async def test_the_worker_is_present_without_jobs(house: House) -> None:
    await house.worker()
    await eventually(lambda: house.enqueue.faults.calls["RenewLeases"] >= 3)
    presence = house.enqueue.presence
    assert presence is not None
    assert (presence.worker, presence.slots, tuple(presence.lanes)) == ("worker-1", 4, LANES)


async def test_a_name_may_have_the_hosts_in_it(house: House) -> None:
    app = await house.worker(name="worker-{host}")
    assert app.name == f"worker-{socket.gethostname()}"


async def test_nothing_is_taken_before_enqueue_knows_the_worker(house: House) -> None:
    house.enqueue.faults.away.add("RenewLeases")
    house.enqueue.faults.lose_answers["RenewLeases"] = 1
    job = house.job(1)
    await house.ring(1)
    await house.worker()
    await eventually(lambda: house.enqueue.faults.calls["RenewLeases"] >= 3)
    assert house.enqueue.faults.calls["ClaimJob"] == 0
    house.enqueue.faults.away.clear()
    await house.until_state(job, "SUCCEEDED")
    fresh = house.enqueue.fresh
    await eventually(lambda: fresh.count(False) >= 2)
    known = fresh.index(False)  # from the first whose answer was heard: one was lost
    assert known >= 2
    assert not any(fresh[known:])


async def test_garbage_goes_to_the_dead_letters(house: House) -> None:
    await house.worker()
    await house.publish(b"\xff\xff garbage", b"", b"\x08\x63\x10\x07")
    await eventually(lambda: len(house.broker.dead_letters(lane_queue(LANE))) == 3)
    assert house.enqueue.faults.calls["ClaimJob"] == 0
    assert (await house.run(7)).state == "SUCCEEDED"


async def test_doorbells_for_nothing_are_forgotten(house: House) -> None:
    await house.worker()
    house.job(2, state="SUCCEEDED")
    await house.ring(404, 2)
    assert (await house.run(7)).state == "SUCCEEDED"
    assert house.broker.ready_count(lane_queue(LANE)) == 0
    assert house.broker.dead_letters(lane_queue(LANE)) == ()


async def test_counters(house: House) -> None:
    def script(request: ImageRequest, tries: int) -> object:
        if request.index == 2 and tries == 1:
            return GenerationError(Outcome.NO_IMAGE, "no image")
        return b"image"

    app = await house.worker(script)
    house.assets.stored[7, 1] = (500, b"from an earlier attempt")
    job = await house.run(7, 2)
    assert job.files[1] == 500
    worker = await house.look(app)
    counted = (worker.generator_calls, worker.generator_failures, worker.wasted_generations)
    assert counted == (3, 1, 1)
    assert worker.generator_healthy
    assert worker.uptime_seconds > 0
