"""A private PostgreSQL cluster for tests."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from tests.support.ports import free_port
from tests.support.process import (
    ServerMissingError,
    ServerProcess,
    StartError,
    as_user,
    descendants,
    give_to,
    server_folder,
    unprivileged_user,
    wait_until_ready,
)

OLDEST_VERSION = 15
SUPERUSER = "postgres"
_ENV = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
_SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "max_connections": "300",
    "shared_buffers": "'128MB'",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "jit": "off",
    "deadlock_timeout": "'200ms'",
    "log_line_prefix": "'%m [%p] %q%u@%d '",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


def find_binaries() -> Path:
    """The newest bin folder of PostgreSQL 15 or later; ServerMissingError where there is none."""
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    on_path = shutil.which("postgres")
    candidates = [*debian, *([Path(on_path).resolve().parent] if on_path else [])]
    versions: list[tuple[int, Path]] = []
    for folder in candidates:
        if not ((folder / "postgres").exists() and (folder / "initdb").exists()):
            continue
        out = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True, env=_ENV
        ).stdout
        match = re.search(r"\b(\d+)[.\w]", out)
        if match and int(match[1]) >= OLDEST_VERSION:
            versions.append((int(match[1]), folder))
    if not versions:
        raise ServerMissingError(
            f"PostgreSQL {OLDEST_VERSION}+", "apt-get install postgresql (it need not run)"
        )
    return max(versions)[1]


class PostgresServer:
    """One cluster: made by the first start, kept over stop, kill and restart, gone on close."""

    def __init__(self, *, fsync: bool = True, settings: dict[str, str] | None = None) -> None:
        """Finds the binaries; ServerMissingError where there are none.

        Args:
            fsync: off loses data only when the machine dies, not on kill(). So does memory, where
                the cluster then is: files are made there in a twentieth of the time.
            settings: more lines for postgresql.conf, values quoted as there.
        """
        self._binaries = find_binaries()
        self._user = unprivileged_user("postgres")
        self._folder = server_folder("pg", in_memory=not fsync)
        self._process: ServerProcess | None = None
        self.host = "127.0.0.1"
        self.port = free_port()
        self._settings = {**_SETTINGS, "port": str(self.port), **(settings or {})}
        self._settings["unix_socket_directories"] = f"'{self._folder}'"
        if not fsync:
            self._settings |= {"fsync": "off", "full_page_writes": "off"}

    def start(self) -> None:
        """Starts it and returns when it takes connections."""
        if self._process is not None and self._process.running:
            return
        if not self._data.exists():
            self._create_cluster()
        self._process = ServerProcess(
            [self._binaries / "postgres", "-D", self._data],
            folder=self._folder,
            log=self.log_path,
            env=_ENV,
            user=self._user,
        )
        wait_until_ready(self._process, self._takes_connections, timeout_seconds=60)

    def stop(self) -> None:
        """Fast shutdown; open connections get AdminShutdown."""
        if self._process is not None:
            self._process.end(signal.SIGINT, timeout_seconds=30)

    def kill(self) -> None:
        """SIGKILL of the postmaster; returns when its children have noticed and ended too."""
        self._running().kill()

    def pause(self) -> None:
        """SIGSTOP of the postmaster and all its children."""
        self._running().pause()

    def resume(self) -> None:
        """SIGCONT of what was paused."""
        self._running().resume()

    def limit_files(self, size: int) -> None:
        """Until the next start no file of it can be written beyond so many bytes.

        What needs no root, no mount and no quota, and ends a write much as a full disk does. As
        the server's own user: root may lack the right to limit others.
        """
        for pid in descendants(self._running().pid):
            subprocess.run(
                [*as_user(self._user), "prlimit", f"--pid={pid}", f"--fsize={size}:"],
                check=False,  # it ended meanwhile
                capture_output=True,
            )

    def restart(self) -> None:
        """Stops (if it runs) and starts on the same data and port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends it for good and removes its folder."""
        if self._process is not None:
            self._process.end(signal.SIGQUIT, timeout_seconds=10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def superuser_dsn(self, database: str = "postgres") -> str:
        """libpq URL of the superuser, without a password."""
        return self.dsn(SUPERUSER, database)

    def dsn(self, user: str, database: str) -> str:
        """libpq URL of any role; the cluster trusts all of 127.0.0.1."""
        return f"postgresql://{user}@{self.host}:{self.port}/{database}"

    def sqlalchemy_url(self, database: str, *, user: str = SUPERUSER) -> str:
        """The same for SQLAlchemy with psycopg."""
        return self.dsn(user, database).replace("postgresql://", "postgresql+psycopg://")

    def create_database(
        self, name: str, template: str | None = None, owner: str | None = None
    ) -> str:
        """Creates a database, as a copy of `template` if given; returns its superuser_dsn."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if owner is not None:
            statement += sql.SQL(" OWNER {}").format(sql.Identifier(owner))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(template))
        self.execute(statement)
        return self.superuser_dsn(name)

    def drop_database(self, name: str) -> None:
        """Drops a database and ends its sessions."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} (FORCE)").format(sql.Identifier(name)))

    def execute(self, statement: sql.Composed) -> None:
        """Runs one statement as superuser, outside a transaction."""
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            connection.execute(statement)

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self._folder / "postgres.log"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _create_cluster(self) -> None:
        give_to(self._folder, self._user)
        initdb = ServerProcess(
            [
                self._binaries / "initdb",
                f"--pgdata={self._data}",
                f"--username={SUPERUSER}",
                "--auth=trust",
                "--locale=C.UTF-8",
                "--encoding=UTF8",
                "--no-sync",
                "--no-instructions",
            ],
            folder=self._folder,
            log=self._folder / "initdb.log",
            env=_ENV,
            user=self._user,
        )
        initdb.wait(timeout_seconds=60)
        lines = [f"{name} = {value}\n" for name, value in self._settings.items()]
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.writelines(lines)

    def _takes_connections(self) -> bool:
        try:
            psycopg.connect(self.superuser_dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise StartError("not started")
        return self._process

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
