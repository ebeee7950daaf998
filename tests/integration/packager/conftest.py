"""The packager on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.packager.house import House, open_house
from tests.support.databases import DatabaseUrls, sqlite_database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseUrls:
    """A migrated, empty database of the packager."""
    if request.param == "sqlite":
        return sqlite_database("packager", tmp_path)
    templates = request.getfixturevalue("postgres_templates")
    return templates.database("packager")  # type: ignore[no-any-return]


@pytest.fixture
async def house(urls: DatabaseUrls, tmp_path: Path) -> AsyncIterator[House]:
    """The packager, running."""
    async with open_house(urls, tmp_path) as house:
        yield house
