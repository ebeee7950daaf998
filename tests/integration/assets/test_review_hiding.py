"""Where reviews are required, nobody but a reviewer reads what none has approved."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from contentshop.assets.v1 import assets_pb2, backend_pb2
from contentshop.enqueue.v1 import job_pb2
from tests.support.assets_house import AssetsHouse, MakeHouse, Team, reason_of

PENDING = job_pb2.REVIEW_STATE_PENDING
APPROVED = job_pb2.REVIEW_STATE_APPROVED
REJECTED = job_pb2.REVIEW_STATE_REJECTED


@pytest.fixture
async def house(make_house: MakeHouse) -> AssetsHouse:
    return await make_house(review_required=True)


async def reasons(team: Team, file_id: int) -> list[str]:
    """What reading the bytes is refused with, one way and the other."""
    url = assets_pb2.CreateDownloadUrlRequest(file_id=file_id)
    return [
        await reason_of(team.download(file_id)),
        await reason_of(team.call("CreateDownloadUrl", url)),
    ]


HIDDEN = ["NOT_APPROVED", "NOT_APPROVED"]


async def made(house: AssetsHouse) -> int:
    return (await house.backend().store("red", 5, 1)).image.file_id


async def test_an_image_is_hidden_until_it_is_approved(house: AssetsHouse, red: Team) -> None:
    file_id = await made(house)
    reviewer = house.team("red", "team", "review")
    assert await reasons(red, file_id) == HIDDEN
    await house.ended("red", 5, outputs=[file_id], review_state=PENDING)
    assert await reasons(red, file_id) == HIDDEN
    assert [file.id for file in await red.files()] == [file_id]  # facts are never hidden
    await reviewer.download(file_id)
    url = assets_pb2.CreateDownloadUrlRequest(file_id=file_id)
    assert await reason_of(reviewer.call("CreateDownloadUrl", url)) == "NO_PUBLIC_URLS"
    said: dict[str, Any] = {"outputs": [file_id], "review_state": APPROVED, "review_time_us": 1_000}
    await house.ended("red", 5, **said)
    await red.download(file_id)
    await house.ended("red", 5, **said | {"review_state": REJECTED, "review_time_us": 2_000})
    assert await reasons(red, file_id) == HIDDEN
    await reviewer.download(file_id)


async def test_uploads_are_never_hidden(red: Team) -> None:
    await red.download((await red.upload()).id)


async def test_another_teams_reviewer_sees_nothing(house: AssetsHouse) -> None:
    file_id = await made(house)
    other = house.team("blue", "team", "review")
    assert await reason_of(other.download(file_id)) == "RESOURCE_NOT_FOUND"


async def test_the_scope_review_alone_is_not_enough(house: AssetsHouse) -> None:
    file_id = await made(house)
    assert await reason_of(house.team("red", "review").download(file_id)) == "SCOPE_MISSING"


TOLD = [(PENDING, 0), (APPROVED, 1_000), (REJECTED, 2_000)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_messages_in_any_order_leave_the_last_review(
    house: AssetsHouse, red: Team, order: tuple[int, ...]
) -> None:
    file_id = await made(house)
    for number in (*order, order[0]):
        state, made_us = TOLD[number]
        await house.ended("red", 5, outputs=[file_id], review_state=state, review_time_us=made_us)
    assert await reasons(red, file_id) == HIDDEN
    await house.ended("red", 5, outputs=[file_id], review_state=APPROVED, review_time_us=3_000)
    for state, made_us in TOLD:
        await house.ended("red", 5, outputs=[file_id], review_state=state, review_time_us=made_us)
    await red.download(file_id)


async def test_a_zip_is_hidden_with_its_job(house: AssetsHouse, red: Team) -> None:
    file_id = await made(house)
    said: dict[str, Any] = {"outputs": [file_id], "review_state": APPROVED, "review_time_us": 1_000}
    await house.ended("red", 5, **said)
    first = await house.archive("red", 5)
    await red.download(first)
    await house.ended("red", 5, **said | {"review_state": REJECTED, "review_time_us": 2_000})
    assert await reasons(red, first) == HIDDEN
    second = await house.archive("red", 5)  # its packager had not heard of it
    assert await reasons(red, second) == HIDDEN
    await house.ended("red", 5, **said | {"review_time_us": 3_000})
    await red.download(first)
    await red.download(second)


async def test_a_folders_zip_leaves_hidden_images_out(house: AssetsHouse) -> None:
    red, packager = house.team("red"), house.backend("packager")
    backend = house.backend()
    for job_id in (5, 6, 7):
        file_id = (await backend.store("red", job_id, 1)).image.file_id
        state, made_us = [(APPROVED, 1_000), (PENDING, 0), (REJECTED, 2_000)][job_id - 5]
        await house.ended(
            "red", job_id, outputs=[file_id], review_state=state, review_time_us=made_us
        )
    folders = await red.call("ListFolders", assets_pb2.ListFoldersRequest())
    request = backend_pb2.ListFolderImagesRequest(team="red", folder_id=folders.folders[0].id)
    listed = await packager.call("ListFolderImages", request)
    shown = [file.id for file in await red.files() if file.job_id == 5]
    assert list(listed.file_ids) == shown


async def test_nothing_is_hidden_where_no_review_is_required(make_house: MakeHouse) -> None:
    house = await make_house()
    red = house.team("red")
    file_id = await made(house)
    await red.download(file_id)
    await house.ended("red", 5, outputs=[file_id], review_state=REJECTED, review_time_us=1)
    await red.download(file_id)
