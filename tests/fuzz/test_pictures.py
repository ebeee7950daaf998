"""Broken and hostile pictures: refused without a trace, or stored clean."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest

from tests.fuzz.calls import drawn
from tests.fuzz.house import House, open_house
from tests.fuzz.judging import Tally
from tests.fuzz.pictures import DOORS, Kept, check_stored, pictures, send
from tests.fuzz.running import MAX_GROWN_BYTES, resident_bytes
from tests.support.databases import SERVICES, PostgresTemplates, sqlite_database
from tests.support.seaweed import SeaweedServer

pytestmark = pytest.mark.timeout(300)


async def sent(house: House, count: int, doors: tuple[str, ...], folder: Path | None) -> Kept:
    """So many pictures, always the same."""
    tally, kept = Tally(), Kept()
    found = await asyncio.to_thread(drawn, pictures(doors), count)
    before = resident_bytes()
    for number, picture in enumerate(found):
        await send(house, number, picture, tally, kept)
    assert not tally.failures, "\n".join(tally.failures[:20])
    assert resident_bytes() - before < MAX_GROWN_BYTES
    await check_stored(house, kept, folder)
    return kept


async def test_any_picture_is_refused_without_a_trace_or_stored_clean(tmp_path: Path) -> None:
    urls = {service: sqlite_database(service, tmp_path) for service in SERVICES}
    async with open_house(urls, tmp_path) as house:
        kept = await sent(house, 150, ("upload", "generated"), tmp_path / "blobs")
    for door in ("upload", "generated"):
        assert kept.accepted[door] > 5
        assert kept.refused[door] > 10


@pytest.mark.real
async def test_any_picture_that_is_put_by_url(
    postgres_templates: PostgresTemplates, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    urls = {service: postgres_templates.database(service) for service in SERVICES}
    blob_url = seaweed.blob_url().replace(seaweed.bucket, f"fuzz-{secrets.token_hex(4)}", 1)
    keys = {"BLOB_ACCESS_KEY": seaweed.access_key, "BLOB_SECRET_KEY": seaweed.secret_key}
    async with open_house(urls, tmp_path, blob_url, BLOB_CREATE_BUCKET="yes", **keys) as house:
        kept = await sent(house, 60, (*DOORS, "put"), None)
    assert kept.accepted["put"] > 2
    assert kept.refused["put"] > 2
