"""The second wall between teams, on PostgreSQL: it holds where the first is taken away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from libs.common import request_keys
from libs.common.db import Database
from services.enqueue import tables
from services.enqueue.store import (
    admission,
    batches,
    events,
    images,
    jobs,
    ledger,
    retries,
    reviews,
    usage,
)
from services.enqueue.store.jobs import JobFilter
from tests.integration.enqueue.house import CLOCK, open_house
from tests.support.databases import DatabaseUrls

pytestmark = pytest.mark.real

WALLED = [table.name for table in tables.metadata.sorted_tables if "team" in table.c]
UNWALLED = [table.name for table in tables.metadata.sorted_tables if "team" not in table.c]
DENIED = psycopg.errors.InsufficientPrivilege
Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
async def urls(postgres_templates: Any) -> DatabaseUrls:
    """A database where red and blue each have credits, a batch, a finished and a waiting job."""
    found: DatabaseUrls = postgres_templates.database("enqueue")
    async with open_house(found) as house:
        for name in ("red", "blue"):
            team = house.team(name)
            await house.ops().grant(name, 5)
            done = await team.generate(request_id="a")
            await house.worker().make_all(done.id)
            await team.generate()
    db = Database(found.app, duty_url=found.duty, clock=CLOCK)
    async with db.duty() as tx:
        await batches.add(tx, [("red", "one"), ("blue", "one")])
    await db.stop()
    return found


def dsn(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


@contextmanager
def acting(url: str, teams: str | None = None) -> Iterator[Connection]:
    """One transaction, for these teams; it is rolled back."""
    with psycopg.connect(dsn(url)) as connection:
        if teams is not None:
            connection.execute("SELECT set_config('contentshop.teams', %s, true)", (teams,))
        yield connection
        connection.rollback()


def count(connection: Connection, table: str, team: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {} WHERE team = %s").format(sql.Identifier(table))
    row = connection.execute(query, (team,)).fetchone()
    assert row is not None
    return int(row[0])


def test_every_table_with_a_team_is_walled(urls: DatabaseUrls) -> None:
    assert set(WALLED) == {
        *("accounts", "audit_entries", "batches", "credit_entries", "events"),
        *("idempotency_keys", "images", "jobs", "teams"),
    }
    with acting(urls.owner) as connection:
        rows = connection.execute(
            "SELECT relname, relrowsecurity AND relforcerowsecurity FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
    assert {name for name, walled in rows if walled} == set(WALLED)


@pytest.mark.parametrize("table", WALLED)
def test_a_team_sees_and_touches_its_own_rows_alone(urls: DatabaseUrls, table: str) -> None:
    name = sql.Identifier(table)
    with acting(urls.duty) as connection:
        assert count(connection, table, "red") > 0
    with acting(urls.app, "blue") as connection:
        assert count(connection, table, "blue") > 0
        assert count(connection, table, "red") == 0
        # Without a WHERE, too: what is touched is blue's.
        teams = connection.execute(sql.SQL("SELECT DISTINCT team FROM {}").format(name)).fetchall()
        assert teams == [("blue",)]
    for statement in (
        sql.SQL("UPDATE {} SET team = team WHERE team = 'red'"),
        sql.SQL("UPDATE {} SET team = 'red'"),
        sql.SQL("DELETE FROM {} WHERE team = 'red'"),
    ):
        with acting(urls.app, "blue") as connection:
            try:
                touched = connection.execute(statement.format(name)).rowcount
            except DENIED:
                continue  # not granted, or refused by the policy
            assert touched == 0
    with acting(urls.app, "red,blue") as connection:  # a group commit
        assert count(connection, table, "red") > 0
        assert count(connection, table, "blue") > 0


@pytest.mark.parametrize("table", WALLED)
@pytest.mark.parametrize(
    "teams", [None, "", ",", "%", "re", "red ", "red%", '"red"', "{red}", "NULL", "green"]
)
def test_no_team_and_no_such_team_see_nothing(
    urls: DatabaseUrls, table: str, teams: str | None
) -> None:
    with acting(urls.app, teams) as connection:
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        assert connection.execute(query).fetchone() == (0,)


@pytest.mark.parametrize("table", WALLED)
def test_a_row_of_another_team_is_refused(urls: DatabaseUrls, table: str) -> None:
    """Blue's own rows, said to be red's."""
    columns = [c.name for c in tables.metadata.tables[table].c if c.name not in ("id", "team")]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    copy = sql.SQL("INSERT INTO {table} (team, {names}) SELECT 'red', {names} FROM {table}").format(
        table=sql.Identifier(table), names=names
    )
    with acting(urls.app, "blue") as connection, pytest.raises(DENIED) as raised:
        connection.execute(copy)
    # Accounts are for operators to open: teams may insert none at all.
    wall = "permission denied" if table == "accounts" else "row-level security"
    assert wall in str(raised.value)


@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET team = team"])
@pytest.mark.parametrize("table", ["credit_entries", "audit_entries"])
def test_what_is_written_to_the_ledger_or_the_audit_stays(
    urls: DatabaseUrls, table: str, statement: str
) -> None:
    with acting(urls.app, "red") as connection, pytest.raises(DENIED, match="permission denied"):
        connection.execute(sql.SQL(statement).format(sql.Identifier(table)))


def test_a_connection_used_again_remembers_no_team(urls: DatabaseUrls) -> None:
    with psycopg.connect(dsn(urls.app)) as connection:
        for end in (connection.commit, connection.rollback):
            connection.execute("SELECT set_config('contentshop.teams', 'red', true)")
            assert count(connection, "jobs", "red") > 0
            end()
            # The setting is the empty string now, not absent.
            assert count(connection, "jobs", "red") == 0
            end()


async def test_the_pool_leaks_no_team(urls: DatabaseUrls) -> None:
    db = Database(urls.app, duty_url=urls.duty, clock=CLOCK, pool_size=1)
    try:
        for team, other in (("red", "blue"), ("blue", "red")):
            async with db.read(team) as tx:
                assert {job.spec.team for job in await jobs.find_many(tx, range(1, 100))} == {team}
            async with db.read() as tx:
                assert await jobs.find_many(tx, range(1, 100)) == []
            with pytest.raises(RuntimeError):
                async with db.transaction(other):
                    raise RuntimeError
    finally:
        await db.stop()


def test_the_application_cannot_read_what_has_no_team(urls: DatabaseUrls) -> None:
    assert UNWALLED == ["home", "models", "outbox", "paused_lanes", "workers"]
    for table in (*UNWALLED, "alembic_version"):
        reading = ("SELECT * FROM {}",) if table != "home" else ()  # where it is, anybody may know
        for verb in (*reading, "DELETE FROM {}", "TRUNCATE {}"):
            statement = sql.SQL(verb).format(sql.Identifier(table))
            with acting(urls.app, "red") as connection, pytest.raises(DENIED):
                connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SET ROLE enqueue_duty",
        "SET ROLE enqueue_owner",
        "SET SESSION AUTHORIZATION postgres",
        "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY jobs_team ON jobs",
        "CREATE POLICY mine ON jobs USING (true)",
        "ALTER ROLE enqueue_app BYPASSRLS",
        "GRANT enqueue_owner TO enqueue_app",
        "CREATE TABLE public.mine (id int)",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "TRUNCATE jobs CASCADE",
        "COPY jobs TO PROGRAM 'cat'",
    ],
)
def test_the_roles_in_use_cannot_take_the_wall_down(urls: DatabaseUrls, statement: str) -> None:
    for url in (urls.app, urls.duty):
        with acting(url, "blue") as connection:
            if (url, statement) == (urls.duty, "SET ROLE enqueue_duty"):
                continue  # it is that role
            with pytest.raises(DENIED):
                connection.execute(statement.encode())


def test_row_security_off_is_an_error_not_a_way(urls: DatabaseUrls) -> None:
    with acting(urls.app, "blue") as connection:
        connection.execute("SET row_security = off")
        with pytest.raises(DENIED):
            connection.execute("SELECT * FROM jobs")


def test_the_roles_in_use_own_nothing_and_are_nobody_special(urls: DatabaseUrls) -> None:
    with acting(urls.owner) as connection:
        roles = connection.execute(
            "SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR "
            "rolreplication FROM pg_roles WHERE rolname IN ('enqueue_app', 'enqueue_duty')"
        ).fetchall()
        assert sorted(roles) == [("enqueue_app", False), ("enqueue_duty", False)]
        owned = connection.execute(
            "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) ~ '_(app|duty)$' "
            "UNION ALL SELECT proname FROM pg_proc WHERE pg_get_userbyid(proowner) ~ '_(app|duty)$'"
        ).fetchall()
        assert owned == []
        members = connection.execute(
            "SELECT 1 FROM pg_auth_members WHERE pg_get_userbyid(member) ~ '_(app|duty)$'"
        ).fetchall()
        assert members == []


async def test_the_wall_holds_where_a_query_forgets_the_team(urls: DatabaseUrls) -> None:
    db = Database(urls.app, duty_url=urls.duty, clock=CLOCK)
    try:
        async with db.duty() as tx:
            everything = await jobs.find_many(tx, range(1, 100))
        red = [job.id for job in everything if job.spec.team == "red"]
        assert len(red) == 2
        async with db.read("blue") as tx:
            assert await jobs.find(tx, red[0], team=None) is None
            assert await jobs.find(tx, red[0], team="red") is None
            assert await images.of_jobs(tx, red) == {}
            assert await jobs.team_of(tx, red[0]) is None
            assert await jobs.page(tx, "red", JobFilter(), before_id=None, limit=10) == []
            assert await events.after(tx, red[0], 0, 100, team="red") == []
            assert (
                await request_keys.find(
                    tx, tables.idempotency_keys, [("red", "EnqueueGeneration", "a")]
                )
                == {}
            )
            assert await admission.waiting_count(tx, "red", 10) == 0
            assert await ledger.find(tx, "red") is None
            assert await ledger.page(tx, "red", job_id=0, before_id=None, limit=9) == []
            assert (await usage.between(tx, "red", None, None)).images == 0
            assert await batches.find_many(tx, range(1, 100), "red") == []
            assert await batches.page(tx, "red", before_id=None, limit=9) == []
            assert len(await batches.names(tx, range(1, 100))) == 1  # blue's own
            assert await retries.dead(tx, "", before_id=None, limit=9) == []
        async with db.transaction("blue") as tx:
            assert await jobs.lock(tx, red[1]) is None
            assert await jobs.cancel(tx, [red[1]], confirm=60.0) == []
            assert await admission.lock_teams(tx, ["red"]) == {}
            assert await ledger.lock(tx, ["red"]) == {}
            assert await reviews.lock_image(tx, "red", red[0], 1) is None
            await images.cancel_pending(tx, [red[1]])
        async with db.duty() as tx:
            assert await jobs.find(tx, red[1]) == next(j for j in everything if j.id == red[1])
    finally:
        await db.stop()
