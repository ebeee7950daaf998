"""What enqueue is told when it asks which ends assets has not heard of."""

from __future__ import annotations

import pytest

from contentshop.assets.v1 import backend_pb2
from contentshop.enqueue.v1 import job_pb2
from libs.common.errors import InvalidArgumentError
from tests.support.assets_house import AssetsHouse, Backend


async def unheard(backend: Backend, team: str, *jobs: int, review_us: int = 0) -> list[int]:
    request = backend_pb2.ListUnheardEndingsRequest(
        team=team,
        jobs=[backend_pb2.EndedJob(job_id=job, review_time_us=review_us) for job in jobs],
    )
    return list((await backend.call("ListUnheardEndings", request)).job_ids)


async def test_jobs_whose_end_was_not_heard_are_named_in_order(
    house: AssetsHouse, backend: Backend
) -> None:
    await house.ended("red", 2, "pin-2", state=job_pb2.JOB_STATE_CANCELED)
    await backend.store("red", 3, 1)  # it has an image, and goes on as far as assets knows
    assert await unheard(backend, "red", 3, 2, 1) == [3, 1]
    await house.ended("red", 3, "pin-3")
    assert await unheard(backend, "red", 3, 2, 1) == [1]
    assert await unheard(backend, "red") == []


async def test_a_team_hears_nothing_of_anothers_endings(
    house: AssetsHouse, backend: Backend
) -> None:
    await house.ended("red", 1, "pin-1")
    assert await unheard(backend, "blue", 1) == [1]


async def test_an_end_whose_newest_review_was_not_heard_is_not_heard(
    house: AssetsHouse, backend: Backend
) -> None:
    rejected = job_pb2.REVIEW_STATE_REJECTED
    await house.ended("red", 1, "pin-1", review_state=rejected, review_time_us=70)
    assert await unheard(backend, "red", 1, review_us=70) == []
    assert await unheard(backend, "red", 1, review_us=71) == [1]


@pytest.mark.parametrize(
    ("jobs", "field"),
    [
        ([backend_pb2.EndedJob(job_id=1), backend_pb2.EndedJob()], "jobs[1].job_id"),
        ([backend_pb2.EndedJob(job_id=1, review_time_us=-1)], "jobs[0].review_time_us"),
        ([backend_pb2.EndedJob(job_id=1)] * 501, "jobs"),
    ],
)
async def test_a_wrong_question_is_refused(
    backend: Backend, jobs: list[backend_pb2.EndedJob], field: str
) -> None:
    request = backend_pb2.ListUnheardEndingsRequest(team="red", jobs=jobs)
    with pytest.raises(InvalidArgumentError) as caught:
        await backend.call("ListUnheardEndings", request)
    assert [violation.field for violation in caught.value.violations] == [field]
