"""A running assets house, its teams and its other services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.assets_house import (
    DATABASES,
    AssetsHouse,
    Backend,
    MakeHouse,
    Team,
    database,
)


@pytest.fixture(params=DATABASES)
async def make_house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeHouse]:
    """Makes one running house with these settings."""
    houses: list[AssetsHouse] = []

    async def make(**changes: Any) -> AssetsHouse:
        urls = database(request.param, request, tmp_path)
        house = AssetsHouse(urls, (tmp_path / "blobs").as_uri(), **changes)
        houses.append(house)
        await house.start()
        return house

    yield make
    for house in houses:
        await house.stop()


@pytest.fixture
async def house(make_house: MakeHouse) -> AssetsHouse:
    return await make_house()


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
async def red(house: AssetsHouse) -> Team:
    return house.team("red")


@pytest.fixture
async def blue(house: AssetsHouse) -> Team:
    return house.team("blue")


@pytest.fixture
async def backend(house: AssetsHouse) -> Backend:
    return house.backend()
