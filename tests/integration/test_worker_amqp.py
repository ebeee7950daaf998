"""Two workers on one RabbitMQ: slots, pauses and stops with real acks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.common.broker import LANES, Message, lane_queue
from libs.common.broker_amqp import AmqpBroker
from services.worker.app import WorkerApp, build
from tests.support.amqp import AmqpInspector
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitServer
from tests.support.worker_house import House, doorbell

pytestmark = pytest.mark.real


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.start()
    yield house
    await house.stop()


async def test_no_doorbell_is_lost_over_full_slots_and_a_stop(
    house: House, rabbit_server: RabbitServer
) -> None:
    url = await asyncio.to_thread(rabbit_server.create_vhost, "workers")

    async def image() -> bytes:
        await asyncio.sleep(0.02)
        return b"image"

    house.generator.script = lambda _request, _tries: image()
    apps: list[WorkerApp] = []
    for name in ("one", "two"):
        settings = house.settings(name=name, slots=2, broker_url=url, drain_seconds=60.0)
        app = build(settings, ids=house.ids, generator=house.generator)
        apps.append(app)
        await app.start()
    house.apps += apps
    ringer = AmqpBroker(url, name="ringer", clock=house.clock, ids=house.ids)
    await ringer.start()
    await eventually(lambda: ringer.connected)

    jobs = [house.job(n, 2) for n in range(1, 41)]
    bells = [Message(lane_queue(LANES[job.job_id % 4]), doorbell(job.job_id)) for job in jobs]
    assert all(await ringer.publish(bells))
    await eventually(lambda: sum(job.state == "SUCCEEDED" for job in jobs) >= 8)
    await apps[0].stop()
    for job in jobs:
        if job.releases and job.state == "QUEUED":  # what the drain gave back is rung again
            await ringer.publish([Message(lane_queue(LANES[0]), doorbell(job.job_id))])
    for job in jobs:
        await house.until_state(job, "SUCCEEDED")
    async with AmqpInspector(url) as inspector:
        for lane in LANES:
            assert await inspector.dead(lane_queue(lane)) == []
            assert await inspector.ready(lane_queue(lane)) == 0
    # Nobody made an image twice, and nobody carried more than its slots.
    assert len(house.generator.requests) == 80
    assert house.generator.most_running <= 8
    await ringer.close()
