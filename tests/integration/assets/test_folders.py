"""Folders: made by teams, filled by the ends of jobs, once, whatever is repeated."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2, backend_pb2
from contentshop.enqueue.v1 import job_pb2
from libs.common.errors import AlreadyExistsError, InvalidArgumentError, ResourceExhaustedError
from services.assets import tables
from tests.support.assets_house import (
    AssetsHouse,
    Backend,
    MakeHouse,
    Team,
    all_of,
    reason_of,
)


async def create(team: Team, name: str, request_id: str = "") -> assets_pb2.Folder:
    request = assets_pb2.CreateFolderRequest(name=name, request_id=request_id)
    response: assets_pb2.CreateFolderResponse = await team.call("CreateFolder", request)
    return response.folder


async def get(team: Team, folder_id: int) -> assets_pb2.Folder:
    request = assets_pb2.GetFolderRequest(folder_id=folder_id)
    response: assets_pb2.GetFolderResponse = await team.call("GetFolder", request)
    return response.folder


async def folders(team: Team, **filters: Any) -> list[assets_pb2.Folder]:
    response = await team.call("ListFolders", assets_pb2.ListFoldersRequest(**filters))
    return list(response.folders)


async def files_in(team: Team, folder_id: int) -> list[int]:
    request = assets_pb2.ListFolderFilesRequest(folder_id=folder_id)
    response: assets_pb2.ListFolderFilesResponse = await team.call("ListFolderFiles", request)
    return [file.id for file in response.files]


async def images_of(backend: Backend, team: str, folder_id: int) -> Any:
    request = backend_pb2.ListFolderImagesRequest(team=team, folder_id=folder_id)
    return await backend.call("ListFolderImages", request)


async def stored(backend: Backend, job_id: int, count: int = 1, team: str = "red") -> list[int]:
    answers = [await backend.store(team, job_id, index) for index in range(1, count + 1)]
    return [answer.image.file_id for answer in answers]


async def test_a_team_makes_folders(red: Team, blue: Team) -> None:
    one = await create(red, "  Summer 24/25  ")
    assert (one.name, one.kind, one.file_count) == (
        "Summer 24_25",
        assets_pb2.FOLDER_KIND_NAMED,
        0,
    )
    assert await get(red, one.id) == one
    with pytest.raises(AlreadyExistsError) as caught:
        await create(red, "Summer 24/25")
    assert caught.value.reason == "FOLDER_EXISTS"
    theirs = await create(blue, "Summer 24/25")
    two = await create(red, "summer 24/25")
    assert await folders(red) == [two, one]
    assert await folders(blue) == [theirs]
    assert await files_in(red, one.id) == []


async def test_a_replay_answers_with_the_same_folder(red: Team, blue: Team) -> None:
    first = await create(red, "a", "key-1")
    answers = await all_of(*(create(red, "a", "key-1") for _ in range(5)))
    assert answers == [first] * 5
    with pytest.raises(AlreadyExistsError) as caught:
        await create(red, "b", "key-1")
    assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"
    assert (await create(blue, "a", "key-1")).id != first.id
    races = await all_of(*(create(red, "new", "key-2") for _ in range(5)))
    assert len({folder.id for folder in races}) == 1
    same_name = await all_of(*(create(red, "same") for _ in range(5)))
    assert [type(answer) for answer in same_name].count(AlreadyExistsError) == 4


async def test_a_team_has_only_so_many_folders(make_house: MakeHouse) -> None:
    house = await make_house(folders_per_team=3)
    red = house.team("red")
    answers = await all_of(*(create(red, f"n{n}", f"key-{n}") for n in range(6)))
    refused = [a for a in answers if isinstance(a, ResourceExhaustedError)]
    assert [error.reason for error in refused] == ["TOO_MANY_FOLDERS"] * 3
    kept = next(n for n, a in enumerate(answers) if isinstance(a, assets_pb2.Folder))
    assert await create(red, f"n{kept}", f"key-{kept}") == answers[kept]  # a replay makes nothing
    await house.ended("red", 5, outputs=await stored(house.backend(), 5))
    assert len(await folders(red)) == 4  # jobs are not refused their folder
    await create(house.team("blue"), "a")


@pytest.mark.parametrize(
    "name", ["", "   ", "...", "x" * 101, "a\nb", "a\rb", "a\0b", "\u202e", "a\x1b[31m"]
)
async def test_wrong_names_are_refused(red: Team, name: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await create(red, name)
    assert [violation.field for violation in caught.value.violations] == ["name"]
    assert await folders(red) == []


async def test_another_teams_folder_is_unknown(
    red: Team, blue: Team, house: AssetsHouse, backend: Backend
) -> None:
    folder = await create(red, "a")
    await house.ended("red", 5, outputs=await stored(backend, 5), folder_id=folder.id)
    for team, folder_id in (("blue", folder.id), ("red", 999_999)):
        caller = red if team == "red" else blue
        assert await reason_of(get(caller, folder_id)) == "RESOURCE_NOT_FOUND"
        assert await reason_of(files_in(caller, folder_id)) == "RESOURCE_NOT_FOUND"
        assert await reason_of(images_of(backend, team, folder_id)) == "RESOURCE_NOT_FOUND"
    for wrong in (0, -1):
        assert await reason_of(get(red, wrong)) == "INVALID_ARGUMENT"
        assert await reason_of(files_in(red, wrong)) == "INVALID_ARGUMENT"
        assert await reason_of(images_of(backend, "red", wrong)) == "INVALID_ARGUMENT"
    assert await reason_of(images_of(backend, "a,b", folder.id)) == "INVALID_ARGUMENT"


async def test_a_jobs_images_go_to_its_folder_or_the_default_one(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    chosen = await create(red, "chosen")
    one, two = await stored(backend, 5, 2), await stored(backend, 6, 2)
    assert await files_in(red, chosen.id) == []
    await house.ended("red", 5, outputs=one, folder_id=chosen.id)
    for _ in range(3):  # at least once
        await house.ended("red", 6, outputs=two, variant="sku-1", product="shoe")
    default, again = await folders(red)
    assert (default.kind, default.file_count) == (assets_pb2.FOLDER_KIND_DEFAULT, 2)
    assert (again.id, again.file_count) == (chosen.id, 2)
    assert await files_in(red, chosen.id) == one[::-1]
    assert await files_in(red, default.id) == two[::-1]
    assert (await red.get(two[0])).variant == "sku-1"
    assert await house.count(tables.folder_files) == 4
    images = await images_of(backend, "red", default.id)
    assert (images.name, list(images.file_ids)) == (default.name, two)


async def test_a_batchs_images_go_to_two_folders(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    said: dict[str, Any] = {"batch_id": 7, "batch_name": "Spring\nshoes"}
    made = [await stored(backend, job_id, 2) for job_id in (5, 6, 7)]
    for index, (outputs, variant) in enumerate(zip(made, ("red/42", "", "sku-3"), strict=True), 1):
        for _ in range(2):
            await house.ended(
                "red", 4 + index, outputs=outputs, variant_index=index, variant=variant, **said
            )
    everything = {(f.kind, f.name, f.variant_index, f.file_count) for f in await folders(red)}
    per_variant = assets_pb2.FOLDER_KIND_BATCH_VARIANT
    assert everything == {
        (assets_pb2.FOLDER_KIND_BATCH, "Spring shoes", 0, 6),
        (per_variant, "red_42", 1, 2),
        (per_variant, "variant-2", 2, 2),
        (per_variant, "sku-3", 3, 2),
    }
    ids = {folder.variant_index: folder.id for folder in await folders(red, batch_id=7)}
    assert await files_in(red, ids[0]) == [n for outputs in made[::-1] for n in outputs[::-1]]
    assert await files_in(red, ids[2]) == made[1][::-1]
    assert await folders(red, batch_id=8) == []


async def test_the_jobs_of_a_batch_may_end_at_once(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    jobs = range(1, 9)
    made = {job_id: await stored(backend, job_id) for job_id in jobs}
    await all_of(
        *(
            house.ended("red", job_id, outputs=made[job_id], batch_id=7, variant_index=1 + n % 2)
            for n, job_id in enumerate(jobs)
            for _ in range(2)
        )
    )
    counts = {f.variant_index: (f.name, f.file_count) for f in await folders(red, batch_id=7)}
    assert counts == {0: ("batch-7", 8), 1: ("variant-1", 4), 2: ("variant-2", 4)}
    assert await house.count(tables.folders) == 3


async def test_what_a_canceled_job_made_stays(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    first, second = await stored(backend, 5, 2)
    await house.ended("red", 5, outputs=[first], state=job_pb2.JOB_STATE_CANCELED)
    (default,) = await folders(red)
    assert await files_in(red, default.id) == [first]
    assert await reason_of(red.get(second)) == "RESOURCE_NOT_FOUND"
    await house.ended("red", 6, state=job_pb2.JOB_STATE_FAILED)  # it made nothing
    await red.delete(first)
    assert await files_in(red, default.id) == []
    assert (await get(red, default.id)).file_count == 0
    assert list((await images_of(backend, "red", default.id)).file_ids) == []


async def test_a_job_never_reaches_another_teams_folder(
    house: AssetsHouse, red: Team, blue: Team, backend: Backend
) -> None:
    theirs = await create(blue, "a")
    await house.ended("red", 5, outputs=await stored(backend, 5), folder_id=theirs.id)
    assert await files_in(blue, theirs.id) == []
    assert [folder.file_count for folder in await folders(red)] == [1]


async def test_folders_and_their_files_come_in_pages(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    made = await stored(backend, 5, 5)
    await house.ended("red", 5, outputs=made)
    (default,) = await folders(red)
    ids = [default.id, *[(await create(red, f"n{n}")).id for n in range(4)]]
    assert await paged(red, "ListFolders", assets_pb2.ListFoldersRequest, "folders") == ids[::-1]
    in_folder = assets_pb2.ListFolderFilesRequest
    found = await paged(red, "ListFolderFiles", in_folder, "files", folder_id=default.id)
    assert found == made[::-1]
    first = await red.call("ListFolderFiles", in_folder(folder_id=default.id, page_size=2))
    for strange in (
        in_folder(folder_id=ids[1], page_token=first.next_page_token),
        assets_pb2.ListFoldersRequest(page_token=first.next_page_token),
        assets_pb2.ListFoldersRequest(page_token="x"),
    ):
        method = "ListFolderFiles" if isinstance(strange, in_folder) else "ListFolders"
        assert await reason_of(red.call(method, strange)) == "BAD_PAGE_TOKEN"
    for wrong in (-1, 201):
        assert await reason_of(folders(red, page_size=wrong)) == "INVALID_ARGUMENT"


async def paged(team: Team, method: str, request: Any, field: str, **said: Any) -> list[int]:
    """Ids, two to a page."""
    found: list[int] = []
    token = ""
    while True:
        response = await team.call(method, request(page_size=2, page_token=token, **said))
        found += [item.id for item in getattr(response, field)]
        token = response.next_page_token
        if not token:
            return found


async def test_a_folder_too_large_for_a_zip(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    made = await stored(backend, 5)
    await house.ended("red", 5, outputs=made)
    (default,) = await folders(red)
    await fill(house, default.id, made[0], 1999)
    assert len((await images_of(backend, "red", default.id)).file_ids) == 2000
    await fill(house, default.id, made[0], 1)
    assert await reason_of(images_of(backend, "red", default.id)) == "FOLDER_TOO_LARGE"


async def fill(house: AssetsHouse, folder_id: int, like: int, count: int) -> None:
    """Puts copies of a file's row into a folder."""
    files = tables.files
    async with house.db.duty() as tx:
        row = (await tx.execute(sa.select(files).where(files.c.id == like))).one()._asdict()
        del row["id"]
        copies = [
            row | {"blob_key": house.ids.token(), "kind": "UPLOAD", "job_id": 0}
            for _ in range(count)
        ]
        copy = sa.insert(files).returning(files.c.id)
        ids = (await tx.execute(copy, copies)).scalars().all()
        within = [{"folder_id": folder_id, "file_id": n, "team": "red"} for n in ids]
        await tx.execute(sa.insert(tables.folder_files).values(added_at=tx.now()), within)
