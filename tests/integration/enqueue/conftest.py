"""enqueue on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.enqueue.house import House, open_house
from tests.integration.enqueue.rooms import Rooms, open_rooms
from tests.support.databases import DatabaseUrls, sqlite_database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseUrls:
    """A migrated, empty database of enqueue."""
    if request.param == "sqlite":
        return sqlite_database("enqueue", tmp_path)
    templates = request.getfixturevalue("postgres_templates")
    return templates.database("enqueue")  # type: ignore[no-any-return]


@pytest.fixture
async def house(urls: DatabaseUrls) -> AsyncIterator[House]:
    """enqueue, running."""
    async with open_house(urls) as house:
        yield house


@pytest.fixture
async def rooms(urls: DatabaseUrls) -> AsyncIterator[Rooms]:
    """enqueue's store, with nothing running."""
    async with open_rooms(urls) as rooms:
        yield rooms
