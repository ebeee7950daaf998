"""A migrated database per test: a new SQLite file, or a copy of a migrated PostgreSQL template."""

from __future__ import annotations

import importlib
import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from libs.common.migrations import migrate
from tests.support.postgres import PostgresServer, find_binaries

ROOT = Path(__file__).parents[2]
SERVICES = ("enqueue", "assets", "packager")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """SQLAlchemy URLs of one service's database, as its settings want them."""

    app: str
    duty: str
    owner: str

    def settings(self, service: str) -> dict[str, str]:
        """The environment variables of the service."""
        prefix = service.upper()
        return {
            f"{prefix}_DATABASE_URL": self.app,
            f"{prefix}_DUTY_DATABASE_URL": self.duty,
            f"{prefix}_OWNER_DATABASE_URL": self.owner,
        }


def migrations_of(service: str) -> Path:
    """The migrations folder of a service."""
    return ROOT / "services" / service / "migrations"


def sqlite_database(service: str, folder: Path) -> DatabaseUrls:
    """A migrated SQLite file."""
    url = f"sqlite+aiosqlite:///{folder / f'{service}.db'}"
    migrate(url, migrations_of(service))
    return DatabaseUrls(url, "", url)


def make_roles(server: PostgresServer) -> None:
    """The roles and databases of deploy/postgres/roles.sql, made once per cluster."""
    variables = [
        f"{kind}_password=test-{kind}"  # the private cluster trusts 127.0.0.1
        for kind in ("owner", "app", "duty")
    ]
    subprocess.run(
        [
            find_binaries() / "psql",
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            *(f"--set={variable}" for variable in variables),
            f"--file={ROOT / 'deploy' / 'postgres' / 'roles.sql'}",
            server.superuser_dsn(),
        ],
        check=True,
        capture_output=True,
    )


def postgres_urls(server: PostgresServer, service: str, database: str) -> DatabaseUrls:
    """The URLs of the three roles on a database of a service."""
    return DatabaseUrls(
        *(
            server.sqlalchemy_url(database, user=f"{service}_{kind}")
            for kind in ("app", "duty", "owner")
        )
    )


def take_walls_down(urls: DatabaseUrls) -> None:
    """Switches row-level security off in a database, as its owner may and nobody in use can."""
    engine = sa.create_engine(urls.owner)
    try:
        with engine.begin() as connection:
            walled = "SELECT relname FROM pg_class WHERE relrowsecurity AND relkind = 'r'"
            for table in connection.scalars(sa.text(walled)).all():
                connection.execute(sa.text(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"))
    finally:
        engine.dispose()


class PostgresTemplates:
    """Migrates each service's own database once, and hands out copies of it."""

    def __init__(self, server: PostgresServer, *, walled: bool = True) -> None:
        self._server = server
        self._walled = walled
        self._migrated: set[str] = set()
        self._handed_out: list[str] = []
        make_roles(server)

    def empty(self, service: str) -> DatabaseUrls:
        """A new database that nobody migrated."""
        return self._new(service, template=None)

    def database(self, service: str) -> DatabaseUrls:
        """A new migrated database."""
        if service not in self._migrated:
            importlib.import_module(f"services.{service}.tables")
            urls = postgres_urls(self._server, service, service)
            migrate(urls.owner, migrations_of(service))
            if not self._walled:
                take_walls_down(urls)
            self._migrated.add(service)
        return self._new(service, template=service)

    def drop_handed_out(self) -> None:
        """Ends all that were handed out so far."""
        while self._handed_out:
            self._server.drop_database(self._handed_out.pop())

    def _new(self, service: str, *, template: str | None) -> DatabaseUrls:
        name = f"{service}_{next(_numbers)}"
        self._server.create_database(name, template=template, owner=f"{service}_owner")
        self._handed_out.append(name)
        return postgres_urls(self._server, service, name)
