"""The servers of a test session; pytest-xdist has several sessions, each with its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from hypothesis import HealthCheck, settings

from libs.common import logs
from tests.support.databases import PostgresTemplates
from tests.support.home import Belongings, Session, comes_home
from tests.support.postgres import PostgresServer
from tests.support.process import ServerMissingError
from tests.support.rabbitmq import RabbitServer
from tests.support.seaweed import SeaweedServer
from tests.support.team_filter import team_filter_off

S = TypeVar("S", PostgresServer, RabbitServer)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which walls between teams stand; the suites pass with either of them, on PostgreSQL."""
    for wall, what in (
        ("--team-filter", "the team in the services' own statements"),
        ("--row-level-security", "the policies of the databases"),
    ):
        parser.addoption(wall, choices=("on", "off"), default="on", help=what)


@pytest.fixture(scope="session", autouse=True)
def team_filter(pytestconfig: pytest.Config) -> Iterator[None]:
    """Takes the team out of every statement where that is asked for."""
    if pytestconfig.getoption("--team-filter") == "on":
        yield
        return
    with team_filter_off():
        yield


logs.configure("tests", level="warning", json=False)
# A machine that stands still for a second is no fault of a test's.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def started_or_skip(make: Callable[[], S]) -> Iterator[S]:
    """Runs a server for the session; skips what needs it where it is not installed."""
    try:
        server = make()
    except ServerMissingError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(belonging: Session) -> Iterator[PostgresServer]:
    """One cluster; take a database of your own from it."""
    for server in started_or_skip(lambda: PostgresServer(fsync=False)):
        belonging.postgres = server
        yield server
        belonging.postgres = None


@pytest.fixture(scope="session")
def rabbit_server(belonging: Session) -> Iterator[RabbitServer]:
    """One node; take a vhost of your own from it (0.4 s)."""
    for server in started_or_skip(RabbitServer):
        belonging.rabbit = server
        yield server
        belonging.rabbit = None


@pytest.fixture(scope="session")
def postgres_templates(
    postgres_server: PostgresServer, belonging: Session, pytestconfig: pytest.Config
) -> PostgresTemplates:
    """Hands out migrated databases on the session's cluster; a module's go with it."""
    walled = pytestconfig.getoption("--row-level-security") == "on"
    belonging.databases = PostgresTemplates(postgres_server, walled=walled)
    return belonging.databases


@pytest.fixture(scope="session")
def seaweed(belonging: Session) -> Iterator[SeaweedServer]:
    """One S3 server; its binary comes with the dev requirements, so it is never missing."""
    server = belonging.seaweed = SeaweedServer()
    try:
        server.start()
        yield server
    finally:
        server.close()
        belonging.seaweed = None


@pytest.fixture(scope="session")
async def belonging(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Session]:
    """What belongs to the session; temporary files go to a folder of its own meanwhile.

    gRPC's poller, a thread and two sockets, is there while any of its objects is: one is.
    """
    tmp_path_factory.getbasetemp()  # made now, and not in the folder below
    folder = Path(tempfile.mkdtemp(prefix="contentshop-tests-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setenv("TMPDIR", str(folder))  # of processes that inherit our environment
        async with grpc.aio.insecure_channel("127.0.0.1:1"):
            yield Session()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
async def comes_home_again(
    request: pytest.FixtureRequest,
    belonging: Session,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[None]:
    """Fails the last test of a module that leaves anything behind; see tests/support/home.py."""
    folder = tmp_path_factory.getbasetemp()
    before = Belongings(belonging, folder)
    yield
    await comes_home(before, belonging, folder, houses="unit" not in request.path.parts)
    if belonging.databases is not None:
        belonging.databases.drop_handed_out()
