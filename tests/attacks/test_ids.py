"""Another team's thing answers as one that never was, and as one that is gone: to the byte.

The rows come from the descriptors: a new RPC or field is in the matrix by itself, or fails here.
Two walls stand between teams, every query's team and row-level security. SQLite has the first
alone; here PostgreSQL is asked with both, with the second alone, and with neither.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.attacks.belongings import NOBODYS
from tests.attacks.house import METHODS, headers_for
from tests.attacks.id_fields import IdField, id_fields
from tests.attacks.matrix import (
    COMPARED_AGAIN,
    EXCEPTIONS,
    FORMS,
    KINDS,
    NOT_THERE,
    OPTIONAL,
    OTHER,
    OTHERWISE,
    ROWS,
    TEAM,
    WITHOUT,
    Table,
    excepted,
    fields_of,
    laid_table,
    of_a_lease,
    of_one_team,
    reason_of,
    told,
)
from tests.attacks.samples import sample
from tests.support.databases import SERVICES, sqlite_database, take_walls_down
from tests.support.team_filter import team_filter_off

# Calls whose own thing is gone or changed after: they come last among the controls.
LAST = ("DeleteMoodboard", "DeleteFile")
# They need a failed job, or public URLs.
NOT_CREATED_HERE = ("RetryJob", "RetryBatch", "CreateUpload")
pytestmark = pytest.mark.timeout(300)  # three teams' worth of jobs, zips and retention come first
POSTGRES = pytest.param("postgresql", marks=pytest.mark.real)
both = pytest.mark.parametrize("table", ["sqlite", POSTGRES], indirect=True)
on_postgres = pytest.mark.parametrize("table", [POSTGRES], indirect=True)


def test_every_field_that_names_something_has_a_row_or_a_reason() -> None:
    fields = id_fields()
    assert len(ROWS) > 60
    assert [f.name for f in fields if f not in ROWS and excepted(f) is None] == []
    # No list of exceptions holds what is not there any more.
    assert sorted(set(EXCEPTIONS) - {excepted(field) for field in fields}) == []
    names = {row.name for row in ROWS}
    assert sorted((KINDS.keys() | OTHERWISE.keys() | WITHOUT.keys()) - names) == []


@pytest.fixture(scope="module")
async def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Table]:
    """The laid table, on a kind of database; all tests of one kind share it."""
    folder = tmp_path_factory.mktemp("matrix")
    if request.param == "sqlite":
        urls = {service: sqlite_database(service, folder) for service in SERVICES}
    else:
        templates = request.getfixturevalue("postgres_templates")
        urls = {service: templates.database(service) for service in SERVICES}
    async with laid_table(urls, folder) as laid:
        yield laid


@both
async def test_what_is_not_theirs_is_not_there(table: Table) -> None:
    assert await table.leaks(FORMS) == {}


@both
async def test_no_id_is_below_one(table: Table) -> None:
    wrong = []
    for row in [row for row in ROWS if row.kind not in ("upload_url", "variant")]:
        for value in (-1, -(2**63), 0):
            if value == 0 and row.name in OPTIONAL:
                continue
            answer = await table.ask_value(row, value)
            if answer.code != "INVALID_ARGUMENT" or not set(fields_of(answer)) & row.wrong:
                wrong.append(f"{row.name} {value}: {told(answer)}")
    assert not wrong, "\n".join(wrong)


@both
async def test_a_request_id_is_of_one_team(table: Table) -> None:
    """Another team's use of the same key is no replay, no conflict, and shows nothing."""
    creates = [
        method
        for method in METHODS
        if "request_id" in method.descriptor.input_type.fields_by_name
        and method.scopes == ("team",)
        and method.descriptor.name not in NOT_CREATED_HERE
    ]
    assert len(creates) >= 6
    for method in creates:
        answers = []
        for team, own in ((TEAM, table.owners.own), (OTHER, table.owners.theirs)):
            request: Any = sample(method, own, team)
            request.request_id = "the-same-key"
            headers = headers_for(method, team)
            answers.append(await table.house.call(method, request.SerializeToString(), headers))
        assert [answer.code for answer in answers] == ["OK", "OK"], (method.name, answers)
        assert answers[0].messages != answers[1].messages, method.name


@on_postgres
async def test_row_level_security_holds_alone(table: Table) -> None:
    with team_filter_off() as removed:
        assert await table.leaks() == {}
    # The switch is on: tables of every service were asked without a team.
    assert {"jobs", "batches", "files", "folders", "moodboards", "archives"} <= removed.keys()


def _last(row: IdField) -> int:
    name = row.method.descriptor.name
    return LAST.index(name) + 1 if name in LAST else 0


@both
async def test_what_is_theirs_is_there(table: Table) -> None:
    """Else the rows above might be refused for another reason than the id."""
    wrong = []
    for row in sorted((row for row in ROWS if not of_a_lease(row)), key=_last):
        answer = await table.ask(row, table.owners.own)
        same = row.name in OTHERWISE and answer == await table.ask(row, NOBODYS)
        if answer.code == "NOT_FOUND" or reason_of(answer) in NOT_THERE or same:
            wrong.append(f"{row.name}: {told(answer)}")
    assert not wrong, "\n".join(wrong)


@on_postgres
async def test_with_both_walls_down_the_matrix_sees_it(table: Table) -> None:
    """The plant: what the matrix and the switch find where nothing holds. The last test here."""
    for urls in table.house.urls.values():
        take_walls_down(urls)
    with team_filter_off():
        leaks = await table.leaks()
    assert len(leaks) > 40
    # What is told of nobody also then: files that are named for use and jobs that are locked are
    # compared once more when they are read.
    blind = [row for row in ROWS if of_one_team(row) and row.name not in leaks]
    assert {row.kind for row in blind} <= {"file", "upload_url", "moodboard", "job"}
    assert {row.name for row in blind if row.kind == "job"} == COMPARED_AGAIN
