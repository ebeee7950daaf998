"""Variants, and the images that could stand for them: in four statements, however many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2
from libs.common.errors import InvalidArgumentError, ResourceExhaustedError
from services.assets import tables
from services.assets.store.variants import newest_generated, newest_uploads
from tests.support.assets_house import (
    AssetsHouse,
    Backend,
    MakeHouse,
    Team,
    all_of,
    reason_of,
)

Variant = assets_pb2.Variant


async def put(team: Team, *variants: assets_pb2.Variant) -> list[assets_pb2.Variant]:
    request = assets_pb2.PutVariantsRequest(variants=variants)
    response: assets_pb2.PutVariantsResponse = await team.call("PutVariants", request)
    return list(response.variants)


async def listed(team: Team, **said: Any) -> assets_pb2.ListVariantsResponse:
    request = assets_pb2.ListVariantsRequest(**said)
    response: assets_pb2.ListVariantsResponse = await team.call("ListVariants", request)
    return response


async def candidates(team: Team, *variant_ids: str) -> assets_pb2.ListImageCandidatesResponse:
    request = assets_pb2.ListImageCandidatesRequest(variant_ids=variant_ids)
    response: assets_pb2.ListImageCandidatesResponse = await team.call(
        "ListImageCandidates", request
    )
    return response


async def test_variants_are_put_and_changed(red: Team, blue: Team) -> None:
    image = (await red.upload()).id
    shoe = Variant(id="shoe/42 ü", product="shoe", title="Shoe", image_file_id=image)
    first = await put(red, Variant(id="z"), shoe, Variant(id="a", product="hat"))
    assert [variant.id for variant in first] == ["z", "shoe/42 ü", "a"]
    assert (first[1].product, first[1].title, first[1].image_file_id) == ("shoe", "Shoe", image)
    assert list((await listed(red)).variants) == [first[2], first[1], first[0]]
    changed = await put(red, Variant(id="shoe/42 ü", title="New"), Variant(id="b"))
    assert (changed[0].product, changed[0].image_file_id) == ("", 0)
    assert changed[0].update_time.ToDatetime() > first[1].update_time.ToDatetime()
    assert [v.id for v in (await listed(red)).variants] == ["a", "b", "shoe/42 ü", "z"]
    assert [v.id for v in (await listed(red, product="hat")).variants] == ["a"]
    assert list((await listed(blue)).variants) == []
    await put(blue, Variant(id="a", title="theirs"))
    assert [v.title for v in (await listed(red, product="hat")).variants] == [""]


async def test_five_hundred_variants_and_no_more(red: Team) -> None:
    many = [Variant(id=f"v{n:03}", product="p") for n in range(501)]
    assert [v.id for v in await put(red, *many[:500])] == [v.id for v in many[:500]]
    assert await reason_of(put(red, *many)) == "INVALID_ARGUMENT"
    assert await reason_of(put(red)) == "INVALID_ARGUMENT"
    found: list[str] = []
    token = ""
    while True:
        page = await listed(red, page_size=200, page_token=token, product="p")
        found += [variant.id for variant in page.variants]
        token = page.next_page_token
        if not token:
            break
        assert await reason_of(listed(red, page_token=token)) == "BAD_PAGE_TOKEN"
    assert found == [variant.id for variant in many[:500]]
    assert await reason_of(listed(red, page_size=501)) == "INVALID_ARGUMENT"


async def test_a_team_keeps_only_so_many(make_house: MakeHouse) -> None:
    house = await make_house(variants_per_team=4)
    red = house.team("red")
    answers = await all_of(*(put(red, Variant(id=f"{n}a"), Variant(id=f"{n}b")) for n in range(4)))
    refused = [answer for answer in answers if isinstance(answer, ResourceExhaustedError)]
    assert [error.reason for error in refused] == ["TOO_MANY_VARIANTS"] * 2
    kept = (await listed(red)).variants
    assert len(kept) == 4
    await put(red, *kept)  # nothing new
    assert await reason_of(put(red, kept[0], Variant(id="new"))) == "TOO_MANY_VARIANTS"
    await put(house.team("blue"), Variant(id="a"))


async def test_every_bad_field_is_named(red: Team, blue: Team, backend: Backend) -> None:
    theirs = (await blue.upload()).id
    unfinished = (await backend.store("red", 5, 1)).image.file_id
    wrong = [
        Variant(id=""),
        Variant(id="x" * 201),
        Variant(id="a", product="x" * 201),
        Variant(id="a", title="x\0"),
        Variant(id="b", image_file_id=-1),
    ]
    with pytest.raises(InvalidArgumentError) as caught:
        await put(red, *wrong)
    assert [violation.field for violation in caught.value.violations] == [
        "variants[0].id",
        "variants[1].id",
        "variants[2].product",
        "variants[3].title",
        "variants[3].id",
        "variants[4].image_file_id",
    ]
    with pytest.raises(InvalidArgumentError) as caught:
        await put(
            red,
            Variant(id="a"),
            *(Variant(id=f"v{n}", image_file_id=n) for n in (theirs, unfinished, 999_999)),
        )
    assert caught.value.reason == "BAD_IMAGE_REFERENCE"
    assert {v.field: v.reason for v in caught.value.violations} == {
        f"variants[{n}].image_file_id": "IMAGE_NOT_FOUND" for n in (1, 2, 3)
    }
    assert list((await listed(red)).variants) == []
    assert await reason_of(listed(red, product="x" * 201)) == "INVALID_ARGUMENT"


async def test_puts_of_the_same_variants_do_not_meet(red: Team) -> None:
    ids = [f"v{n}" for n in range(20)]
    answers = await all_of(
        *(put(red, *(Variant(id=i) for i in (ids if n % 2 else ids[::-1]))) for n in range(8))
    )
    assert all(isinstance(answer, list) for answer in answers)
    assert len((await listed(red)).variants) == 20


async def test_a_deleted_image_is_none(red: Team) -> None:
    image = (await red.upload()).id
    await put(red, Variant(id="a", image_file_id=image))
    (found,) = (await candidates(red, "a")).variants
    assert (found.variant.image_file_id, found.image.id) == (image, image)
    await red.delete(image)
    (found,) = (await candidates(red, "a")).variants
    assert (found.variant.image_file_id, found.HasField("image")) == (0, False)
    assert [variant.image_file_id for variant in (await listed(red)).variants] == [0]


async def test_candidates_are_the_images_made_for_a_variant(
    house: AssetsHouse, red: Team, blue: Team, backend: Backend
) -> None:
    uploads = [(await red.upload()).id for _ in range(2)]
    await put(red, Variant(id="b"), Variant(id="a", image_file_id=uploads[0]))
    await put(blue, Variant(id="a"))
    made: dict[int, list[int]] = {}
    for job_id, variant in ((1, "a"), (2, "b"), (3, "a"), (4, "other"), (5, "")):
        made[job_id] = [
            (await backend.store("red", job_id, index)).image.file_id for index in (1, 2)
        ]
        await house.ended("red", job_id, outputs=made[job_id], variant=variant)
    await backend.store("red", 6, 1)  # of a live job
    await red.delete(made[3][1])
    found = await candidates(red, "a", "nobody", "b", "a", "other")
    assert [entry.variant.id for entry in found.variants] == ["a", "b"]
    first, second = found.variants
    assert [file.id for file in first.generated] == [made[3][0], *made[1][::-1]]
    assert first.image.id == uploads[0]
    assert [file.id for file in second.generated] == made[2][::-1]
    assert not second.HasField("image")
    assert [file.id for file in found.uploads] == uploads[::-1]
    whole = await red.get(made[3][0])
    assert whole.HasField("provenance")
    whole.ClearField("provenance")  # five thousand of them would be too much for one answer
    assert first.generated[0] == whole
    theirs = await candidates(blue, "a")
    assert [list(entry.generated) for entry in theirs.variants] == [[]]
    assert list(theirs.uploads) == []
    assert list((await candidates(red, "nobody")).variants) == []


@pytest.mark.parametrize("variant_ids", [[], [""], ["x" * 201], [f"v{n}" for n in range(101)]])
async def test_wrong_questions_are_refused(red: Team, variant_ids: list[str]) -> None:
    assert await reason_of(candidates(red, *variant_ids)) == "INVALID_ARGUMENT"


async def test_candidates_take_four_statements_however_many(make_house: MakeHouse) -> None:
    house = await make_house(sweep_seconds=60.0)
    red = house.team("red")
    image = (await red.upload()).id
    await put(red, *(Variant(id=f"v{n}", image_file_id=image) for n in range(100)))
    await fill(house, image, generated_of=100, each=52, uploads=201)
    with statements() as one:
        await candidates(red, "v1")
    with statements() as hundred:
        found = await candidates(red, *(f"v{n}" for n in range(100)))
    assert len(found.variants) == 100
    for entry in found.variants:
        ids = [file.id for file in entry.generated]
        assert len(ids) == 50
        assert ids == sorted(ids, reverse=True)
        assert {file.variant for file in entry.generated} == {entry.variant.id}
    assert len(found.uploads) == 200
    assert len(one) == len(hundred) == 4


@pytest.mark.real
@pytest.mark.parametrize("make_house", ["postgres"], indirect=True)
async def test_candidates_read_no_more_than_they_give(make_house: MakeHouse) -> None:
    house = await make_house(sweep_seconds=60.0)
    red = house.team("red")
    await fill(house, (await red.upload()).id, generated_of=20, each=2000, uploads=5000)
    with psycopg.connect(house.urls.owner.replace("+psycopg", "")) as owner:
        owner.execute("ANALYZE files")  # as autovacuum does by and by
    with statements() as asked:
        async with house.db.read("red") as tx:
            await newest_generated(tx, "red", [f"v{n}" for n in range(20)], 50)
            await newest_uploads(tx, "red", 200)
    with psycopg.connect(house.urls.app.replace("+psycopg", "")) as connection:
        connection.execute("SELECT set_config('contentshop.teams', 'red', true)")
        for statement, parameters in asked:
            explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
            ((plan,),) = connection.execute(explain, parameters).fetchall()
            nodes = list(scans(plan[0]["Plan"]))
            assert {node["Index Name"] for node in nodes} <= {"files_by_variant", "files_uploads"}
            assert sum(node["Actual Rows"] * node["Actual Loops"] for node in nodes) <= 1000
            assert sum(node.get("Rows Removed by Filter", 0) for node in nodes) == 0
    assert len(asked) == 2


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan that read the table."""
    if node.get("Relation Name") == "files":
        yield node
    for child in node.get("Plans", ()):
        yield from scans(child)


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """What is asked of tables meanwhile, by anybody in this process."""
    seen: list[tuple[str, Any]] = []

    def on_execute(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM" in statement:
            seen.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", on_execute)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", on_execute)


async def fill(
    house: AssetsHouse, like: int, *, generated_of: int, each: int, uploads: int
) -> None:
    """Copies a file's row into images of variants v0, v1, … and into uploads."""
    n = numbers(generated_of * each)
    variant = sa.literal("v").concat(sa.cast(n.c.n % generated_of, sa.Text))
    at = tables.files.c.created_at
    made = {"kind": "GENERATED", "variant": variant, "job_id": n.c.n + 1, "recorded_at": at}
    async with house.db.duty() as tx:
        await tx.execute(copies(like, n, made))
        await tx.execute(copies(like, numbers(uploads), {"kind": "UPLOAD"}))


def numbers(count: int) -> sa.CTE:
    """The numbers from 0 up, so many."""
    n = sa.select(sa.literal(0).label("n")).cte("numbers", recursive=True)
    return n.union_all(sa.select(n.c.n + 1).where(n.c.n < count - 1))


def copies(like: int, n: sa.CTE, changes: dict[str, Any]) -> sa.Insert:
    """Copies a file's row, with these changes, once for each number."""
    files = tables.files
    key = sa.literal(changes["kind"]).concat(sa.cast(n.c.n, sa.Text))
    values = {c.name: c for c in files.c if c.name != "id"} | {"blob_key": key}
    values |= {
        name: value if isinstance(value, sa.ColumnElement) else sa.literal(value)
        for name, value in changes.items()
    }
    rows = sa.select(*values.values()).join_from(files, n, sa.true()).where(files.c.id == like)
    return sa.insert(files).from_select(list(values), rows)
