"""Fleets of real processes; what they logged during a test that failed is shown with it."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator

import pytest

from tests.support.databases import PostgresTemplates
from tests.support.fleet import LOG_TAIL_CHARS, Fleet, Servers
from tests.support.postgres import PostgresServer
from tests.support.rabbitmq import RabbitServer
from tests.support.seaweed import SeaweedServer

_FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def servers(
    postgres_server: PostgresServer,
    postgres_templates: PostgresTemplates,
    rabbit_server: RabbitServer,
    seaweed: SeaweedServer,
) -> Servers:
    """What fleets live on."""
    return Servers(postgres_server, postgres_templates, rabbit_server, seaweed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers a failure for `show_logs`."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture
def show_logs(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[None]:
    """Writes what the processes logged during a failed test to stderr, which pytest shows."""
    list(fleet.new_logs("show"))
    yield
    if request.node.stash.get(_FAILED, False):
        for name, text in fleet.new_logs("show"):
            sys.stderr.write(f"---- {name}\n{text[-LOG_TAIL_CHARS:]}\n")
