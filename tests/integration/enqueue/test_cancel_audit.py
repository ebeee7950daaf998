"""Who canceled what: in the audit, with the cancel itself, and once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contentshop.enqueue.v1 import enqueue_pb2, ops_pb2
from libs.common.errors import FailedPreconditionError, NotFoundError
from tests.integration.enqueue.batching import cancel_batch, enqueue_batch, make
from tests.integration.enqueue.house import House


async def told(house: House, **fields: Any) -> list[tuple[str, str, str, int, Any]]:
    """Who did what to whose thing."""
    request = ops_pb2.ListAuditEntriesRequest(**fields)
    entries = (await house.ops().call("ListAuditEntries", request)).entries
    return [(e.team, e.actor, e.action, e.job_id, json.loads(e.details_json)) for e in entries]


async def test_a_cancel_is_audited_once_and_a_refused_one_never(house: House) -> None:
    team, worker = house.team(), house.worker()
    job, done = await team.generate(), await team.generate()
    await worker.make_all(done.id)
    for _ in range(2):
        await team.cancel(job.id)
    with pytest.raises(FailedPreconditionError):
        await team.cancel(done.id)
    with pytest.raises(NotFoundError):
        await house.team("blue").cancel(job.id)
    expected = [("red", "developer", "CANCEL_JOB", job.id, {"old": "QUEUED"})]
    assert await told(house) == expected
    assert await told(house, job_id=job.id) == expected


async def test_a_batchs_cancel_names_the_jobs_it_ended(house: House) -> None:
    team = house.team()
    batch = await enqueue_batch(team)
    first, *rest = sorted(
        job.id for job in (await team.call("ListJobs", enqueue_pb2.ListJobsRequest())).jobs
    )
    await make(house, first)
    for _ in range(2):
        await cancel_batch(team, batch.id)
    details = {"batch_id": batch.id, "job_ids": rest}
    assert await told(house) == [("red", "developer", "CANCEL_BATCH", 0, details)]
