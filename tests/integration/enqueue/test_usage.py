"""What images took, and the pages of the audit."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from google.protobuf import timestamp_pb2

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2, ops_pb2
from libs.common.errors import InvalidArgumentError
from tests.integration.enqueue.house import CLOCK, House, Team


async def usage(team: Team, **fields: Any) -> enqueue_pb2.GetUsageResponse:
    # `from` is a word of Python's.
    request = enqueue_pb2.GetUsageRequest(**fields)
    return await team.call("GetUsage", request)  # type: ignore[no-any-return]


def at(when: datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(when)
    return stamp


async def test_usage_sums_a_teams_own_images_of_a_window(house: House) -> None:
    team, other, worker = house.team(), house.team("blue"), house.worker()
    jobs = [await team.generate(number_of_variations=2), await team.generate()]
    jobs.append(await other.generate())
    for job in jobs:
        claim = await worker.claim(job.id)
        for image in claim.images:
            file_id = job.id * 100 + image.index
            await worker.record(job.id, claim.fence, image.index, file_id, cost_micros=39_000)
    await worker.finish(jobs[0].id, 1)
    assert (await team.get(jobs[0].id)).usage.cost_micros == 78_000

    found = await usage(team)
    assert (found.images, found.jobs) == (3, 2)
    assert found.usage == job_pb2.Usage(
        prompt_tokens=3, output_tokens=6, total_tokens=9, cost_micros=117_000
    )
    job = await team.get(jobs[0].id)
    first, second = (image.done_time for image in job.images)
    # From a time on, and before another.
    window = await usage(team, **{"from": first, "until": second})
    assert (window.images, window.jobs, window.usage.cost_micros) == (1, 1, 39_000)
    nothing = await usage(team, until=first)
    assert nothing == enqueue_pb2.GetUsageResponse(usage=job_pb2.Usage())
    later = at(CLOCK.now() + timedelta(days=1))
    assert (await usage(team, **{"from": later})).images == 0


async def test_windows_that_are_none_are_refused(house: House) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"from": {"seconds": 10}, "until": {"seconds": 10}}, "until"),
        ({"from": {"seconds": 2**62}}, "from"),
        ({"until": {"seconds": -(2**62)}}, "until"),
    ]
    for fields, field in wrong:
        with pytest.raises(InvalidArgumentError) as raised:
            await usage(house.team(), **fields)
        assert [v.field for v in raised.value.violations] == [field]


async def test_the_audit_is_paged_newest_first(house: House) -> None:
    ops = house.ops()
    for number in range(5):
        await ops.grant("red", 10 + number, f"g{number}")
    await ops.grant("blue", 1)

    async def page(token: str = "", team: str = "red") -> Any:
        request = ops_pb2.ListAuditEntriesRequest(page_size=2, page_token=token, team=team)
        return await ops.call("ListAuditEntries", request)

    seen, token = [], ""
    while True:
        answer = await page(token)
        seen += answer.entries
        token = answer.next_page_token
        if not token:
            break
        with pytest.raises(InvalidArgumentError) as raised:
            await page(token, team="blue")
        assert raised.value.reason == "BAD_PAGE_TOKEN"
    assert [(e.actor, e.action, e.team) for e in seen] == 5 * [("operator", "GRANT_CREDITS", "red")]
    assert ['"amount": 14' in seen[0].details_json, '"amount": 10' in seen[4].details_json] == [
        True,
        True,
    ]
    assert [e.id for e in seen] == sorted((e.id for e in seen), reverse=True)
    everything = ops_pb2.ListAuditEntriesRequest()
    assert len((await ops.call("ListAuditEntries", everything)).entries) == 6


async def test_wrong_questions_of_the_audit_are_named(house: House) -> None:
    ops = house.ops()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 501}, "page_size"),
        ({"job_id": -1}, "job_id"),
        ({"team": "no team"}, "team"),
    ]
    for fields, field in wrong:
        with pytest.raises(InvalidArgumentError) as raised:
            await ops.call("ListAuditEntries", ops_pb2.ListAuditEntriesRequest(**fields))
        assert [v.field for v in raised.value.violations] == [field]
