"""The servers of a test session; pytest-xdist has several sessions, each with its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from libs.common import logs
from tests.support.databases import PostgresTemplates
from tests.support.postgres import PostgresServer
from tests.support.process import ServerMissingError
from tests.support.rabbitmq import RabbitServer
from tests.support.seaweed import SeaweedServer

S = TypeVar("S", PostgresServer, RabbitServer)
logs.configure("tests", level="warning", json=False)


def started_or_skip(make: Callable[[], S]) -> Iterator[S]:
    """Runs a server for the session; skips what needs it where it is not installed."""
    try:
        server = make()
    except ServerMissingError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One cluster; take a database of your own from it."""
    yield from started_or_skip(lambda: PostgresServer(fsync=False))


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """One node; take a vhost of your own from it (0.4 s)."""
    yield from started_or_skip(RabbitServer)


@pytest.fixture(scope="session")
def postgres_templates(postgres_server: PostgresServer) -> PostgresTemplates:
    """Hands out migrated databases on the session's cluster."""
    return PostgresTemplates(postgres_server)


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedServer]:
    """One S3 server; its binary comes with the dev requirements, so it is never missing."""
    server = SeaweedServer()
    try:
        server.start()
        yield server
    finally:
        server.close()
