"""Random calls of every RPC: each is answered, in our words, and everything still holds."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.fuzz.calls import METHODS
from tests.fuzz.house import House, open_house
from tests.fuzz.judging import Tally
from tests.fuzz.pool import Pool, fill
from tests.fuzz.running import MAX_GROWN_BYTES, check_promises, fuzz, resident_bytes
from tests.support.databases import SERVICES, PostgresTemplates, sqlite_database
from tests.support.seaweed import SeaweedServer

pytestmark = pytest.mark.timeout(300)


async def fuzzed(house: House, count: int) -> Tally:
    """So many calls, always of the same seeds, after which everything is looked at."""
    pool, tally = Pool(), Tally()
    await fill(house, pool)
    await fuzz(house, pool, count // 3, None, tally)
    before = resident_bytes()
    await fuzz(house, pool, count, 1, tally)
    grown = resident_bytes() - before
    await check_promises(house, tally)
    assert not tally.failures, "\n".join(tally.failures[:20])
    assert grown < MAX_GROWN_BYTES
    return tally


async def test_random_calls_on_sqlite(tmp_path: Path) -> None:
    urls = {service: sqlite_database(service, tmp_path) for service in SERVICES}
    async with open_house(urls, tmp_path) as house:
        tally = await fuzzed(house, 600)
    called = {method for method, _ in tally.calls}
    assert called == set(METHODS)
    # It comes past the doors: otherwise nothing behind them is tried.
    taken = {method for method, code in tally.calls if code == "OK"}
    assert len(taken) > len(METHODS) // 2, sorted(called - taken)


@pytest.mark.real
async def test_random_calls_on_postgres_and_s3(
    postgres_templates: PostgresTemplates, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    urls = {service: postgres_templates.database(service) for service in SERVICES}
    bucket = f"fuzz-{secrets.token_hex(4)}"
    blob_url = seaweed.blob_url().replace(seaweed.bucket, bucket, 1)
    keys = {"BLOB_ACCESS_KEY": seaweed.access_key, "BLOB_SECRET_KEY": seaweed.secret_key}
    async with open_house(urls, tmp_path, blob_url, BLOB_CREATE_BUCKET="yes", **keys) as house:
        tally = await fuzzed(house, 120)
    assert tally.by_code()["OK"] > 25
