"""Many small teams beside one with hundreds of jobs: nobody waits behind another's backlog."""

from __future__ import annotations

from contentshop.enqueue.v1 import messages_pb2
from libs.common.broker import Delivery, lane_queue
from tests.integration.enqueue.batching import enqueue_batch
from tests.integration.enqueue.house import House
from tests.support.eventually import eventually

LANE = "image_generation.fast"
PLACES = 3
BATCHES = 3
SMALL_TEAMS = 50


async def test_fifty_teams_of_one_job_do_not_wait_behind_a_team_of_hundreds(house: House) -> None:
    big, worker = house.team("big"), house.worker()
    for number in range(BATCHES):
        await enqueue_batch(big, 100, name=f"batch {number}")
    small = {(await house.team(f"small-{n}").generate()).id for n in range(SMALL_TEAMS)}
    ended: list[int] = []

    async def carry(delivery: Delivery) -> None:
        """The one worker there is: one job at a time, in the order of the doorbells."""
        job_id = messages_pb2.Doorbell.FromString(delivery.body).job_id
        await delivery.ack()
        if job_id not in ended and not small <= set(ended):
            await worker.make_all(job_id)
            ended.append(job_id)

    await house.broker.consume(lane_queue(LANE), carry, prefetch=1)
    await eventually(lambda: small <= set(ended), timeout_seconds=90)
    # What the big team had live before them, and what it could begin behind each place of those.
    assert len(set(ended) - small) <= 2 * PLACES, "the big team gets its places and no more"
    assert len(ended) <= SMALL_TEAMS + 2 * PLACES
