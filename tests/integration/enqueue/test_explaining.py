"""ExplainJob says why a job waits, for each reason there is."""

from __future__ import annotations

from typing import Any

import pytest

from contentshop.enqueue.v1 import enqueue_pb2, execution_pb2, job_pb2
from libs.common.auth import mint_user_token
from libs.common.errors import NotFoundError
from tests.integration.enqueue.house import CLOCK, USER_SECRET, House, Team

LANE = "image_generation.fast"


async def explain(team: Team, job_id: int) -> Any:
    return await team.call("ExplainJob", enqueue_pb2.ExplainJobRequest(job_id=job_id))


async def present(house: House, *, slots: int, held: dict[int, int] | None = None) -> None:
    worker = house.worker()
    leases = [execution_pb2.HeldLease(job_id=j, fence=f) for j, f in (held or {}).items()]
    request = execution_pb2.RenewLeasesRequest(
        worker=worker.name, lanes=[LANE], slots=slots, leases=leases
    )
    await worker.call("RenewLeases", request)


async def test_each_reason_is_said(house: House) -> None:
    team, worker = house.team(), house.worker()
    jobs = [await team.generate() for _ in range(5)]

    why = await explain(team, jobs[0].id)
    assert why.reason == enqueue_pb2.WAIT_REASON_NO_WORKER
    assert f"no worker serves lane {LANE}" in why.sentence

    await present(house, slots=1)
    assert (await explain(team, jobs[0].id)).reason == enqueue_pb2.WAIT_REASON_STARTING

    claim = await worker.claim(jobs[0].id)
    await present(house, slots=1, held={jobs[0].id: claim.fence})
    why = await explain(team, jobs[1].id)
    assert why.reason == enqueue_pb2.WAIT_REASON_WORKERS_BUSY
    assert (why.workers, why.slots, why.slots_taken) == (1, 1, 1)
    why = await explain(team, jobs[0].id)
    assert why.reason == enqueue_pb2.WAIT_REASON_RUNNING
    assert "0 of 1 images done" in why.sentence

    why = await explain(team, jobs[4].id)
    assert why.reason == enqueue_pb2.WAIT_REASON_TEAM_LIMIT
    assert (why.position, why.live_jobs, why.live_jobs_limit) == (2, 3, 3)
    assert "3 of 3 jobs of team red are live, and 1 wait before it" in why.sentence
    assert not why.HasField("eta")

    await worker.record(jobs[0].id, claim.fence, 1, 101)
    await worker.finish(jobs[0].id, claim.fence)
    why = await explain(team, jobs[0].id)
    assert why.reason == enqueue_pb2.WAIT_REASON_ENDED
    assert why.state == job_pb2.JOB_STATE_SUCCEEDED
    assert (await explain(team, jobs[4].id)).HasField("eta")


@pytest.mark.parametrize("message", ["the prompt was refused", "the prompt was refused."])
async def test_a_failed_job_says_why_as_one_sentence(house: House, message: str) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate()
    claim = await worker.claim(job.id)
    await worker.fail(job.id, claim.fence, 1, "PROMPT_BLOCKED", message)
    await worker.finish(job.id, claim.fence)
    sentence = (await explain(team, job.id)).sentence
    assert sentence.startswith(f"Job {job.id} has ended: failed: PROMPT_BLOCKED, ")
    assert sentence.endswith(" the prompt was refused.")


async def test_a_backing_off_job_says_until_when(house: House) -> None:
    team, worker = house.team(), house.worker()
    job = await team.generate()
    claim = await worker.claim(job.id)
    await worker.release(
        job.id,
        claim.fence,
        execution_pb2.RELEASE_CAUSE_BACKOFF,
        outcome="OVERLOADED",
        message="busy",
        retry_after_ms=60_000,
    )
    why = await explain(team, job.id)
    assert why.reason == enqueue_pb2.WAIT_REASON_BACKOFF
    assert why.HasField("not_before")


async def test_operators_see_every_team_and_strangers_none(house: House) -> None:
    job = await house.team().generate()
    with pytest.raises(NotFoundError):
        await explain(house.team("blue"), job.id)
    token = mint_user_token(
        secret=USER_SECRET, issuer="contentshop", team="", scopes=["ops"], clock=CLOCK
    )
    operator = Team(house.client(lambda: token))
    assert (await explain(operator, job.id)).sentence
