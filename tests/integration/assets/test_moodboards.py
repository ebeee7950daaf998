"""Moodboards: kept, changed, and taken as a snapshot with the images of a job."""

from __future__ import annotations

from typing import Any

import pytest

from contentshop.assets.v1 import assets_pb2, backend_pb2
from libs.common.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    ResourceExhaustedError,
)
from services.assets import tables
from tests.support.assets_house import (
    AssetsHouse,
    Backend,
    MakeHouse,
    Team,
    all_of,
    reason_of,
)

Content = assets_pb2.MoodboardContent


async def create(team: Team, request_id: str = "", **content: Any) -> assets_pb2.Moodboard:
    request = assets_pb2.CreateMoodboardRequest(
        request_id=request_id, content=Content(**({"name": "autumn"} | content))
    )
    response: assets_pb2.CreateMoodboardResponse = await team.call("CreateMoodboard", request)
    return response.moodboard


async def get(team: Team, moodboard_id: int) -> assets_pb2.Moodboard:
    request = assets_pb2.GetMoodboardRequest(moodboard_id=moodboard_id)
    response: assets_pb2.GetMoodboardResponse = await team.call("GetMoodboard", request)
    return response.moodboard


async def update(
    team: Team, moodboard_id: int, revision: int = 0, **content: Any
) -> assets_pb2.Moodboard:
    request = assets_pb2.UpdateMoodboardRequest(
        moodboard_id=moodboard_id,
        revision=revision,
        content=Content(**({"name": "autumn"} | content)),
    )
    response: assets_pb2.UpdateMoodboardResponse = await team.call("UpdateMoodboard", request)
    return response.moodboard


async def delete(team: Team, moodboard_id: int) -> None:
    await team.call("DeleteMoodboard", assets_pb2.DeleteMoodboardRequest(moodboard_id=moodboard_id))


async def listed(team: Team, **said: Any) -> assets_pb2.ListMoodboardsResponse:
    request = assets_pb2.ListMoodboardsRequest(**said)
    response: assets_pb2.ListMoodboardsResponse = await team.call("ListMoodboards", request)
    return response


async def resolve(backend: Backend, team: str = "red", *refs: int, **said: Any) -> Any:
    request = backend_pb2.ResolveImagesRequest(
        team=team, refs=[backend_pb2.ImageRef(file_id=ref) for ref in refs], **said
    )
    return await backend.call("ResolveImages", request)


async def uploads(team: Team, count: int) -> list[int]:
    return [(await team.upload()).id for _ in range(count)]


async def test_a_moodboard_is_kept_changed_and_deleted(red: Team) -> None:
    a, b, c, d = await uploads(red, 4)
    said: dict[str, Any] = {
        "name": "autumn",
        "positive_file_ids": [b, a, b],
        "negative_file_ids": [c],
        "background_file_id": d,
        "model_file_id": a,
        "style_appendix": "warm light,\nlong shadows",
    }
    made = await create(red, **said)
    assert (made.content, made.revision) == (Content(**said), 1)
    assert await get(red, made.id) == made
    bare = await create(red, name="bare")
    assert list((await listed(red)).moodboards) == [bare, made]
    changed = await update(red, made.id, positive_file_ids=[a], name="winter")
    assert (changed.content, changed.revision) == (Content(name="winter", positive_file_ids=[a]), 2)
    assert changed.create_time == made.create_time
    assert await get(red, made.id) == changed
    await delete(red, made.id)
    for call in (get(red, made.id), delete(red, made.id), update(red, made.id)):
        assert await reason_of(call) == "RESOURCE_NOT_FOUND"
    assert list((await listed(red)).moodboards) == [bare]


async def test_a_change_based_on_an_old_revision_is_refused(red: Team) -> None:
    board = await create(red)
    answers = await all_of(*(update(red, board.id, 1, name=f"n{n}") for n in range(5)))
    lost = [answer for answer in answers if isinstance(answer, AbortedError)]
    assert [error.reason for error in lost] == ["STALE_REVISION"] * 4
    assert (await get(red, board.id)).revision == 2
    assert (await update(red, board.id, 2)).revision == 3
    assert (await update(red, board.id)).revision == 4
    assert await reason_of(update(red, board.id, -1)) == "INVALID_ARGUMENT"


async def test_a_replay_answers_with_the_same_moodboard(red: Team, blue: Team) -> None:
    answers = await all_of(*(create(red, "key-1") for _ in range(5)))
    assert len({answer.id for answer in answers}) == 1
    with pytest.raises(AlreadyExistsError) as caught:
        await create(red, "key-1", name="other")
    assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"
    assert (await create(blue, "key-1")).id != answers[0].id
    changed = await update(red, answers[0].id, name="later")
    assert await create(red, "key-1") == changed  # as it is now
    await delete(red, changed.id)
    assert await reason_of(create(red, "key-1")) == "RESOURCE_NOT_FOUND"


async def test_a_team_keeps_only_so_many(make_house: MakeHouse) -> None:
    house = await make_house(moodboards_per_team=3)
    red = house.team("red")
    answers = await all_of(*(create(red) for _ in range(6)))
    refused = [answer for answer in answers if isinstance(answer, ResourceExhaustedError)]
    assert [error.reason for error in refused] == ["TOO_MANY_MOODBOARDS"] * 3
    await create(house.team("blue"))
    await delete(red, next(a.id for a in answers if isinstance(a, assets_pb2.Moodboard)))
    await create(red)


async def test_every_bad_file_is_named(
    red: Team, blue: Team, house: AssetsHouse, backend: Backend
) -> None:
    (mine,), (theirs,) = await uploads(red, 1), await uploads(blue, 1)
    made = [(await backend.store("red", 5, index)).image.file_id for index in (1, 2)]
    await house.ended("red", 6, outputs=[(await backend.store("red", 6, 1)).image.file_id])
    (generated,) = [file.id for file in await red.files(job_id=6)]
    bad: dict[str, Any] = {
        "positive_file_ids": [mine, theirs, 999_999, generated, 0],
        "negative_file_ids": [-1, made[0]],
        "background_file_id": theirs,
        "model_file_id": -5,
    }
    board = await create(red)
    for call in (create(red, **bad), update(red, board.id, **bad)):
        with pytest.raises(InvalidArgumentError) as caught:
            await call
        assert caught.value.reason == "BAD_IMAGE_REFERENCE"
        assert {v.field: v.reason for v in caught.value.violations} == {
            "content.positive_file_ids[1]": "IMAGE_NOT_FOUND",
            "content.positive_file_ids[2]": "IMAGE_NOT_FOUND",
            "content.positive_file_ids[4]": "IMAGE_NOT_AN_UPLOAD",
            "content.negative_file_ids[0]": "IMAGE_NOT_AN_UPLOAD",
            "content.negative_file_ids[1]": "IMAGE_NOT_FOUND",
            "content.background_file_id": "IMAGE_NOT_FOUND",
            "content.model_file_id": "IMAGE_NOT_AN_UPLOAD",
        }
    assert await get(red, board.id) == board
    await house.ended("red", 5, outputs=made)
    await create(red, negative_file_ids=made)  # they are there for good now


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"name": ""}, "content.name"),
        ({"name": " \n"}, "content.name"),
        ({"name": "x" * 101}, "content.name"),
        ({"name": "a\0"}, "content.name"),
        ({"positive_file_ids": range(1, 8)}, "content.positive_file_ids"),
        ({"negative_file_ids": range(1, 4)}, "content.negative_file_ids"),
        ({"style_appendix": "x" * 1001}, "content.style_appendix"),
    ],
)
async def test_wrong_content_is_refused(red: Team, content: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await create(red, **content)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert await reason_of(red.call("CreateMoodboard", assets_pb2.CreateMoodboardRequest())) == (
        "INVALID_ARGUMENT"
    )


async def test_another_teams_moodboard_is_unknown(red: Team, blue: Team) -> None:
    board = await create(red)
    for call in (get(blue, board.id), update(blue, board.id), delete(blue, board.id)):
        assert await reason_of(call) == "RESOURCE_NOT_FOUND"
    for wrong in (0, -1):
        for call in (get(red, wrong), update(red, wrong), delete(red, wrong)):
            assert await reason_of(call) == "INVALID_ARGUMENT"
    assert await get(red, board.id) == board
    assert list((await listed(blue)).moodboards) == []


async def test_moodboards_come_in_pages(red: Team) -> None:
    files = await uploads(red, 2)
    made = [await create(red, name=f"n{n}", positive_file_ids=files) for n in range(5)]
    first = await listed(red, page_size=3)
    second = await listed(red, page_size=3, page_token=first.next_page_token)
    assert [*first.moodboards, *second.moodboards] == made[::-1]
    assert second.next_page_token == ""
    assert await reason_of(listed(red, page_token="x")) == "BAD_PAGE_TOKEN"
    assert await reason_of(listed(red, page_size=201)) == "INVALID_ARGUMENT"


async def test_a_file_of_a_moodboard_is_not_deleted(red: Team) -> None:
    one, two = await uploads(red, 2)
    board = await create(red, positive_file_ids=[one], model_file_id=two)
    assert await reason_of(red.delete(one)) == "FILE_IN_USE"
    assert await reason_of(red.delete(two)) == "FILE_IN_USE"
    await update(red, board.id, positive_file_ids=[one])
    await red.delete(two)
    await delete(red, board.id)
    await red.delete(one)


async def test_using_and_deleting_a_file_never_both_win(red: Team) -> None:
    outcomes = set()
    for file_id in await uploads(red, 15):
        used, deleted = await all_of(create(red, positive_file_ids=[file_id]), red.delete(file_id))
        outcomes.add((type(used), type(deleted)))
    assert outcomes <= {
        (assets_pb2.Moodboard, FailedPreconditionError),
        (InvalidArgumentError, type(None)),
    }


async def test_a_snapshot_is_taken_with_the_images(
    red: Team, house: AssetsHouse, backend: Backend
) -> None:
    a, b, c = await uploads(red, 3)
    board = await create(red, positive_file_ids=[b], model_file_id=c, style_appendix="warm")
    found = await resolve(backend, "red", a, moodboard_id=board.id, pin_token="pin-1")
    assert [image.file_id for image in found.images] == [a]
    assert found.moodboard == board.content
    assert await house.count(tables.pins, tables.pins.c.pin_token == "pin-1") == 3
    await delete(red, board.id)
    assert await reason_of(red.delete(b)) == "FILE_IN_USE"  # the job's snapshot
    await house.ended("red", 5, "pin-1")
    await red.delete(b)
    bare = await create(red, name="bare")
    seen = await resolve(backend, moodboard_id=bare.id)
    assert (list(seen.images), seen.moodboard) == ([], bare.content)
    assert not (await resolve(backend, "red", a)).HasField("moodboard")
    assert await house.count(tables.pins) == 0


async def test_moodboards_and_folders_of_others_are_named(
    red: Team, blue: Team, backend: Backend, house: AssetsHouse
) -> None:
    board = await create(blue, positive_file_ids=await uploads(blue, 1))
    folder = (await blue.call("CreateFolder", assets_pb2.CreateFolderRequest(name="a"))).folder
    (mine,) = await uploads(red, 1)
    for pin_token in ("", "pin-1"):
        for moodboard_id, folder_id in ((board.id, folder.id), (999_999, 999_999)):
            with pytest.raises(InvalidArgumentError) as caught:
                await resolve(
                    backend,
                    "red",
                    mine,
                    999_999,
                    moodboard_id=moodboard_id,
                    folder_id=folder_id,
                    pin_token=pin_token,
                )
            assert caught.value.reason == "BAD_IMAGE_REFERENCE"
            assert {v.field: v.reason for v in caught.value.violations} == {
                "refs[1]": "IMAGE_NOT_FOUND",
                "moodboard_id": "MOODBOARD_NOT_FOUND",
                "folder_id": "FOLDER_NOT_FOUND",
            }
    assert await house.count(tables.pins) == 0
    await resolve(backend, "blue", moodboard_id=board.id, folder_id=folder.id)
    assert await reason_of(resolve(backend, moodboard_id=-1)) == "INVALID_ARGUMENT"
    assert await reason_of(resolve(backend, folder_id=-1)) == "INVALID_ARGUMENT"


async def test_a_snapshot_is_of_one_revision(red: Team, backend: Backend) -> None:
    a, b = await uploads(red, 2)
    board = await create(red, positive_file_ids=[a], style_appendix=str(a))

    async def change() -> None:
        for file_id in (b, a) * 5:
            await update(red, board.id, positive_file_ids=[file_id], style_appendix=str(file_id))

    async def look(turn: int) -> None:
        for n in range(10):
            pin_token = f"pin-{turn}-{n}" if turn else ""
            found = await resolve(backend, moodboard_id=board.id, pin_token=pin_token)
            assert [str(f) for f in found.moodboard.positive_file_ids] == [
                found.moodboard.style_appendix
            ]

    answers = await all_of(change(), look(0), look(1))
    assert answers == [None, None, None]
