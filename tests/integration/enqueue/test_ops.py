"""What operators ask and set."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf import json_format, timestamp_pb2

from contentshop.enqueue.v1 import enqueue_pb2, execution_pb2, job_pb2, ops_pb2
from libs.common.broker import Delivery, lane_queue
from libs.common.db import Database
from libs.common.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
)
from services.enqueue import tables
from services.enqueue.store import admission, lanes
from tests.integration.enqueue.house import CLOCK, House, Ops, Team, open_house
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually

LANE = "image_generation.fast"


async def limits(ops: Ops, team: str = "red", **changes: int) -> Any:
    return await ops.call("SetTeamLimits", ops_pb2.SetTeamLimitsRequest(team=team, **changes))


@asynccontextmanager
async def database(urls: DatabaseUrls) -> AsyncIterator[Database]:
    """The house's database, by a door of our own."""
    db = Database(urls.app, duty_url=urls.duty, clock=CLOCK)
    try:
        yield db
    finally:
        await db.stop()


async def states(team: Team) -> dict[int, bool]:
    """Job id → whether it has a place."""
    answer = await team.call("ListJobs", enqueue_pb2.ListJobsRequest(page_size=200))
    return {job.id: job.HasField("admit_time") for job in answer.jobs}


async def explain(team: Team, job_id: int) -> Any:
    return await team.call("ExplainJob", enqueue_pb2.ExplainJobRequest(job_id=job_id))


async def test_a_higher_limit_admits_at_once_and_a_lower_one_stops_nothing(house: House) -> None:
    team, ops = house.team(), house.ops()
    jobs = [await team.generate() for _ in range(6)]
    assert sum((await states(team)).values()) == 3
    answer = await limits(ops, max_live_jobs=5)
    assert (answer.max_live_jobs, answer.calls_per_minute) == (5, 6000)
    assert [(await states(team))[job.id] for job in jobs] == [True] * 5 + [False]
    assert [e.kind for e in await team.events(jobs[4].id)][-1] == job_pb2.JOB_EVENT_KIND_ADMITTED
    await limits(ops, max_live_jobs=1)
    assert sum((await states(team)).values()) == 5
    await house.worker().make_all(jobs[0].id)
    standing = await states(team)
    assert [standing[job.id] for job in jobs[1:]] == [True] * 4 + [False]
    assert (await limits(ops, max_live_jobs=0)).max_live_jobs == 3
    entries = (await ops.call("ListAuditEntries", ops_pb2.ListAuditEntriesRequest())).entries
    assert [(e.team, e.actor, e.action) for e in entries] == [
        ("red", "operator", "SET_TEAM_LIMITS")
    ] * 3
    assert json.loads(entries[2].details_json)["new"]["max_live_jobs"] == 5


async def test_a_limit_may_be_set_before_the_first_job(house: House) -> None:
    assert (await limits(house.ops(), team="new", max_live_jobs=7)).max_live_jobs == 7
    assert (await limits(house.ops(), team="new")).max_live_jobs == 7
    team = house.team("new")
    for _ in range(7):
        await team.generate()
    assert all((await states(team)).values())


def _seconds(seconds: int) -> timestamp_pb2.Timestamp:
    return timestamp_pb2.Timestamp(seconds=seconds)


def metrics_request(**fields: Any) -> ops_pb2.GetJobMetricsRequest:
    """`from` is a word of Python's own."""
    return ops_pb2.GetJobMetricsRequest(
        **{name.rstrip("_"): value for name, value in fields.items()}
    )


Teams = ops_pb2.SetTeamLimitsRequest
BAD: dict[str, tuple[str, Any, str]] = {
    "no team": ("SetTeamLimits", Teams(max_live_jobs=1), "team"),
    "two teams": ("SetTeamLimits", Teams(team="a,b"), "team"),
    "places below 0": ("SetTeamLimits", Teams(team="a", max_live_jobs=-1), "max_live_jobs"),
    "10,001 places": ("SetTeamLimits", Teams(team="a", max_live_jobs=10_001), "max_live_jobs"),
    "a rate": ("SetTeamLimits", Teams(team="a", calls_per_minute=10**6 + 1), "calls_per_minute"),
    "no such lane": ("PauseLane", ops_pb2.PauseLaneRequest(lane="nowhere"), "lane"),
    "a long reason": ("PauseLane", ops_pb2.PauseLaneRequest(lane=LANE, reason="x" * 201), "reason"),
    "no lane": ("ResumeLane", ops_pb2.ResumeLaneRequest(), "lane"),
    "no model": ("SetModelLimit", ops_pb2.SetModelLimitRequest(calls_per_minute=1), "model"),
    "a limit below 0": (
        "SetModelLimit",
        ops_pb2.SetModelLimitRequest(model="m", calls_per_minute=-1),
        "calls_per_minute",
    ),
    "a team's name": ("GetJobMetrics", ops_pb2.GetJobMetricsRequest(team="a b"), "team"),
    "an empty window": (
        "GetJobMetrics",
        metrics_request(from_=_seconds(5), until=_seconds(5)),
        "until",
    ),
    "no time": ("GetJobMetrics", metrics_request(until=_seconds(2**62)), "until"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input(house: House, name: str) -> None:
    method, request, field = BAD[name]
    with pytest.raises(InvalidArgumentError) as refused:
        await house.ops().call(method, request)
    assert [v.field for v in refused.value.violations] == [field]


async def test_teams_may_not(house: House) -> None:
    team = Ops(house.team().client)
    with pytest.raises(PermissionDeniedError):
        await team.call("GetQueueStats", ops_pb2.GetQueueStatsRequest())


async def test_nobody_claims_from_a_paused_lane_and_resuming_rings_at_once(
    urls: DatabaseUrls,
) -> None:
    # A sweep that comes by itself once a minute: what is seen here was woken.
    async with open_house(urls, SWEEP_SECONDS="60") as house:
        team, ops, worker = house.team(), house.ops(), house.worker()
        rung: list[bytes] = []

        async def hear(delivery: Delivery) -> None:
            rung.append(delivery.body)
            await delivery.ack()

        job = await team.generate()
        other = await team.call(
            "EnqueueEdit",
            json_format.ParseDict(
                {"base_image": {"file_id": 1}, "input": {"instruction": "warmer"}},
                enqueue_pb2.EnqueueEditRequest(),
            ),
        )
        await house.broker.consume(lane_queue(LANE), hear, prefetch=10)
        await eventually(lambda: len(rung) == 1)
        for reason in ("first", "the provider has an outage."):
            await ops.call("PauseLane", ops_pb2.PauseLaneRequest(lane=LANE, reason=reason))
        with pytest.raises(FailedPreconditionError) as refused:
            await worker.claim(job.id)
        assert refused.value.reason == "JOB_NOT_CLAIMABLE"
        why = await explain(team, job.id)
        assert why.reason == enqueue_pb2.WAIT_REASON_LANE_PAUSED
        assert why.sentence == (
            f"Job {job.id} waits because an operator has paused lane {LANE}: the provider has an "
            "outage. It goes on when the lane is resumed."
        )
        await worker.claim(other.job.id, "c2")
        later = await team.generate()
        await eventually(lambda: len(rung) == 2)
        for _ in range(2):
            await ops.call("ResumeLane", ops_pb2.ResumeLaneRequest(lane=LANE))
        await eventually(lambda: len(rung) == 4)
        for one in (job, later):
            await worker.claim(one.id, f"c{one.id}")
        request = ops_pb2.ListAuditEntriesRequest()
        entries = (await ops.call("ListAuditEntries", request)).entries
        assert [e.action for e in entries] == ["RESUME_LANE", "PAUSE_LANE", "PAUSE_LANE"]


async def test_the_sweep_leaves_paused_lanes_alone(house: House) -> None:
    team, ops = house.team(), house.ops()
    job = await team.generate()
    async with database(house.urls) as db, db.duty() as tx:
        await tx.execute(sa.update(tables.jobs).values(ring_at=tx.now()))
        assert [one.id for one in await admission.to_ring(tx, 10)] == [job.id]
        await lanes.pause(tx, LANE, "")
        assert await admission.to_ring(tx, 10) == []
    await ops.call("ResumeLane", ops_pb2.ResumeLaneRequest(lane=LANE))


async def test_the_queue_is_counted_by_lane_and_team(house: House) -> None:
    red, blue, ops, worker = house.team(), house.team("blue"), house.ops(), house.worker()
    jobs = [await red.generate() for _ in range(5)]
    await blue.generate()
    claim = await worker.claim(jobs[0].id)
    await worker.call(
        "RenewLeases",
        execution_pb2.RenewLeasesRequest(
            worker=worker.name,
            lanes=[LANE],
            slots=4,
            leases=[execution_pb2.HeldLease(job_id=jobs[0].id, fence=claim.fence)],
        ),
    )
    await limits(ops, team="blue", max_live_jobs=9)
    await ops.call("PauseLane", ops_pb2.PauseLaneRequest(lane="image_edit.high"))
    await ops.call("SetModelLimit", ops_pb2.SetModelLimitRequest(model="m", calls_per_minute=60))
    stats = await ops.call("GetQueueStats", ops_pb2.GetQueueStatsRequest())
    lanes = {lane.lane: lane for lane in stats.lanes}
    assert sorted(lanes) == [lane.lane for lane in stats.lanes]
    lane = lanes[LANE]
    assert (lane.waiting, lane.admitted, lane.running) == (2, 3, 1)
    assert (lane.workers, lane.slots, lane.slots_taken, lane.paused) == (1, 4, 1, False)
    assert 0 < lane.oldest_admitted_seconds < 30
    assert lanes["image_edit.high"].paused
    assert [(t.team, t.live, t.live_limit, t.waiting) for t in stats.teams] == [
        ("red", 3, 3, 2),
        ("blue", 1, 9, 0),
    ]
    assert stats.teams[0].oldest_waiting_seconds > 0
    assert [(m.model, m.calls_per_minute_limit, m.circuit) for m in stats.models] == [
        ("m", 60, "CLOSED")
    ]
    await eventually(lambda: _outbox_is_empty(ops))


async def _outbox_is_empty(ops: Ops) -> bool:
    stats = await ops.call("GetQueueStats", ops_pb2.GetQueueStatsRequest())
    return not stats.outbox


async def test_ended_jobs_are_measured_by_type(house: House) -> None:
    red, blue, ops, worker = house.team(), house.team("blue"), house.ops(), house.worker()
    begun = CLOCK.now()
    done = [await red.generate() for _ in range(2)] + [await blue.generate()]
    for job in done:
        await worker.make_all(job.id)
    canceled = await red.generate()
    await red.cancel(canceled.id)
    failed = await red.generate()
    claim = await worker.claim(failed.id, "cf")
    await worker.fail(failed.id, claim.fence, 1, "PROMPT_BLOCKED")
    await worker.finish(failed.id, claim.fence)
    await red.generate()
    async with database(house.urls) as db, db.duty() as tx:
        for number, job in enumerate(done):
            created = job.create_time.ToDatetime(tzinfo=UTC) - timedelta(seconds=100)
            start = created + timedelta(seconds=5)
            end = start + timedelta(seconds=10 * (number + 1))
            await tx.execute(
                sa.update(tables.jobs)
                .where(tables.jobs.c.id == job.id)
                .values(created_at=created, started_at=start, finished_at=end)
            )

    async def metrics(**fields: Any) -> list[Any]:
        answer = await ops.call("GetJobMetrics", metrics_request(**fields))
        return list(answer.types)

    one = (await metrics())[0]
    assert one.type == job_pb2.JOB_TYPE_IMAGE_GENERATION
    assert (one.total, one.succeeded, one.failed, one.canceled) == (5, 3, 1, 1)
    assert one.mean_seconds == pytest.approx(20.0)
    assert one.p50_seconds == pytest.approx(20.0)
    assert one.p95_seconds == pytest.approx(29.0)
    assert one.mean_wait_seconds == pytest.approx(5.0)
    one = (await metrics(team="blue"))[0]
    assert (one.total, one.p50_seconds) == (1, pytest.approx(30.0))
    assert await metrics(team="green") == []
    assert await metrics(until=_stamp(begun - timedelta(seconds=300))) == []
    assert await metrics(until=_stamp(datetime.min.replace(tzinfo=UTC))) == []
    assert await metrics(from_=_stamp(datetime.max.replace(tzinfo=UTC))) == []
    assert (await metrics(from_=_stamp(begun - timedelta(seconds=300))))[0].total == 5


async def test_a_team_that_calls_too_much_is_told_when_to_come_back(house: House) -> None:
    red, ops = house.team(), house.ops()
    job = await red.generate()
    assert (await limits(ops, calls_per_minute=1)).calls_per_minute == 1
    await red.get(job.id)
    with pytest.raises(ResourceExhaustedError) as refused:
        await red.get(job.id)
    assert refused.value.reason == "TOO_MANY_CALLS"
    assert refused.value.quota_subject == "calls per minute"
    assert 0 < (refused.value.retry_after_seconds or 0) <= 60
    blue = house.team("blue")
    await blue.generate()
    await house.worker().claim(job.id)
    assert (await limits(ops, calls_per_minute=0)).calls_per_minute == 6000
    await red.get(job.id)


async def test_another_process_learns_of_a_teams_rate(urls: DatabaseUrls) -> None:
    async with open_house(urls) as one:
        await limits(one.ops(), calls_per_minute=1)
    async with open_house(urls) as other:
        red = other.team()

        async def refused() -> bool:
            try:
                await red.call("ListJobs", enqueue_pb2.ListJobsRequest())
            except ResourceExhaustedError:
                return True
            return False

        await eventually(refused)


def _stamp(at: Any) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(at)
    return stamp
