"""Every history: from empty to what tables.py says, again, and by several at once."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from libs.common.migrations import drift, migrate
from tests.support.databases import ROOT, migrations_of, postgres_urls
from tests.support.postgres import PostgresServer

SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/migrations"))
POSTGRES = pytest.param("postgresql", marks=pytest.mark.real)
DATABASES = ["sqlite", POSTGRES]
_MIGRATE = """
import pathlib, sys
from libs.common.migrations import migrate
migrate(sys.argv[1], pathlib.Path(sys.argv[2]))
"""
_ENV = """
import sqlalchemy as sa
from libs.common.migrations import run_env
run_env(sa.MetaData())
"""
_DIES = """
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.execute("CREATE TABLE half (id INTEGER)")
    raise RuntimeError("dies here")
"""


def metadata_of(service: str) -> sa.MetaData:
    return importlib.import_module(f"services.{service}.tables").metadata  # type: ignore[no-any-return]


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, database: str, service: str, tmp_path: Path) -> str:
    """The owner's URL of an empty database."""
    if database == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'new' / f'{service}.db'}"
    request.getfixturevalue("postgres_templates")  # makes the roles
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"empty_{service}_{abs(hash(tmp_path)):x}"
    server.create_database(name, owner=f"{service}_owner")
    return postgres_urls(server, service, name).owner


def run(url: str, service: str, times: int) -> Sequence[tuple[int, str]]:
    """Migrates in so many processes at once: exit code and words of each."""
    command = [sys.executable, "-W", "error", "-c", _MIGRATE, url, str(migrations_of(service))]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(times)
    ]
    words = [process.communicate(timeout=60)[1] for process in processes]
    return [(p.returncode, said) for p, said in zip(processes, words, strict=True)]


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    """What a statement says."""
    plain = url.replace("+aiosqlite", "")
    engine = sa.create_engine(plain, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def test_every_service_with_tables_has_a_history() -> None:
    assert {path.parent.name for path in (ROOT / "services").glob("*/tables.py")} == set(SERVICES)


def test_from_empty_to_tables_py_and_again(url: str, service: str) -> None:
    migrate(url, migrations_of(service))
    assert drift(url, metadata_of(service)) == []
    version = rows(url, "SELECT * FROM alembic_version")
    migrate(url, migrations_of(service))
    assert rows(url, "SELECT * FROM alembic_version") == version
    assert drift(url, metadata_of(service)) == []


def test_several_at_once_are_fine(url: str, service: str) -> None:
    assert run(url, service, times=3) == [(0, "")] * 3
    assert drift(url, metadata_of(service)) == []


@pytest.mark.parametrize("database", [POSTGRES], indirect=True)
def test_every_table_with_a_team_has_its_wall(url: str, service: str) -> None:
    migrate(url, migrations_of(service))
    walled = rows(
        url,
        "SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity "
        "AND relnamespace = 'public'::regnamespace",
    )
    tables = metadata_of(service).tables
    assert {name for (name,) in walled} == {n for n, table in tables.items() if "team" in table.c}


def test_a_migration_that_dies_leaves_nothing(tmp_path: Path) -> None:
    history = tmp_path / "migrations"
    (history / "versions").mkdir(parents=True)
    (history / "env.py").write_text(_ENV)
    (history / "versions" / "0001.py").write_text(_DIES)
    url = f"sqlite:///{tmp_path / 'new.db'}"
    with pytest.raises(RuntimeError, match="dies here"):
        migrate(url, history)
    assert rows(url, "SELECT name FROM sqlite_master") == []


def test_drift_sees_what_differs(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    metadata = sa.MetaData()
    sa.Table(
        "things",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.CheckConstraint("state IN ('A','B')", name="things_state"),
        sa.Index(
            "things_a",
            "state",
            sqlite_where=sa.text("state = 'A'"),
            postgresql_where=sa.text("state = 'A'"),
        ),
    )
    if database == "sqlite":
        url = f"sqlite:///{tmp_path / 'drift.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.create_database(name := f"drift_{abs(hash(tmp_path)):x}")
        url = server.sqlalchemy_url(name)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE things (id INTEGER NOT NULL PRIMARY KEY, state TEXT)",
            "CREATE INDEX things_a ON things (state) WHERE state = 'B'",
            "CREATE TABLE others (id INTEGER NOT NULL PRIMARY KEY)",
        ):
            connection.execute(sa.text(statement))
    found = drift(url, metadata)
    assert [line.split(": ")[1].split(" ")[0] for line in found] == [
        *("check", "column", "index"),
        *("column", "column", "index", "primary", "table"),
    ]
