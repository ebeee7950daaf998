"""What tests of batches and retries ask for."""

from __future__ import annotations

from typing import Any

from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, execution_pb2, messages_pb2
from libs.common.broker import Delivery
from tests.integration.enqueue.house import House, Team


def variants(count: int) -> list[dict[str, Any]]:
    """So many variants: of products 1 to 20 in turn, each with its own words."""
    return [
        {
            "product_images": [{"file_id": n % 20 + 1}],
            "product": f"shirt-{n}",
            "variant": f"colour-{n}",
            "source_task_id": f"task-{n}",
        }
        for n in range(count)
    ]


def batch_request(count: int = 3, **fields: Any) -> enqueue_pb2.EnqueueBatchRequest:
    """A right request of so many variants, changed by fields."""
    fields.setdefault("variants", variants(count))
    fields.setdefault("name", "spring")
    return enqueue_pb2.EnqueueBatchRequest(**fields)


async def enqueue_batch(team: Team, count: int = 3, **fields: Any) -> batch_pb2.Batch:
    answer = await team.call("EnqueueBatch", batch_request(count, **fields))
    return answer.batch  # type: ignore[no-any-return]


async def get_batch(team: Team, batch_id: int) -> batch_pb2.Batch:
    answer = await team.call("GetBatch", enqueue_pb2.GetBatchRequest(batch_id=batch_id))
    return answer.batch  # type: ignore[no-any-return]


async def cancel_batch(team: Team, batch_id: int) -> batch_pb2.Batch:
    answer = await team.call("CancelBatch", enqueue_pb2.CancelBatchRequest(batch_id=batch_id))
    return answer.batch  # type: ignore[no-any-return]


async def make(house: House, job_id: int, *, failing: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """Carries an admitted job to its end; the images of these indexes fail."""
    worker = house.worker()
    claim = await worker.claim(job_id, f"claim-{job_id}")
    for image in claim.images:
        if image.index in failing:
            await worker.fail(job_id, claim.fence, image.index, "OUTPUT_BLOCKED")
        else:
            await worker.record(job_id, claim.fence, image.index, job_id * 100 + image.index)
    await worker.finish(job_id, claim.fence)


async def outputs(house: House, team: str, batch_id: int) -> execution_pb2.GetBatchOutputsResponse:
    """What the packager is told of a batch."""
    packager = house.worker()
    packager.client = house.client(house.service_token("packager"))
    request = execution_pb2.GetBatchOutputsRequest(team=team, batch_id=batch_id)
    stub = type(packager.stub)(packager.client.channel)
    answer: execution_pb2.GetBatchOutputsResponse = await packager.client.unary(
        stub.GetBatchOutputs, request, timeout_seconds=20
    )
    return answer


class Endings:
    """Takes what assets is told of ended jobs."""

    def __init__(self) -> None:
        self.heard: dict[int, messages_pb2.JobEnded] = {}

    async def take(self, delivery: Delivery) -> None:
        message = messages_pb2.JobEnded.FromString(delivery.body)
        if message.state:  # job.enqueued comes on the same queue
            self.heard[message.job_id] = message
        await delivery.ack()


async def endings(house: House) -> Endings:
    """Listens from now on."""
    heard = Endings()
    await house.broker.consume("assets.jobs", heard.take, prefetch=100)
    return heard
