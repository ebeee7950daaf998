"""Old rows go, in bounded steps; what is being built, or still to be said, stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.common.errors import NotFoundError, UnavailableError
from services.packager.usecases.retention import Ages, retention_of
from tests.integration.packager.house import PENDING, House, open_house
from tests.support.databases import DatabaseUrls
from tests.support.eventually import eventually

AGES = Ages(archives_days=30, keys_days=7)


async def _aged(house: House, table: str, column: str, days: int) -> None:
    """Sets the table's times back."""
    on_postgres = house.app.deps.db.on_postgres
    span = f"interval '{days} days'" if on_postgres else f"{days * 86_400_000_000}"  # or µs
    await house.sql(f"UPDATE {table} SET {column} = {column} - {span}")  # noqa: S608 - names of ours


async def test_old_archives_are_forgotten_and_made_anew(house: House) -> None:
    await house.job(7, 2)
    team = house.team()
    first = await team.create(7, "r1")
    await team.ended(7)
    await house.reported()
    await eventually(lambda: _reported(house))
    await _aged(house, "archives", "finished_at", 29)
    assert not await retention_of(house.app.deps, AGES).round()
    await team.get(job_id=7)
    await _aged(house, "archives", "finished_at", 2)
    assert not await retention_of(house.app.deps, Ages(0, 0)).round()
    await team.get(job_id=7)
    await retention_of(house.app.deps, AGES).round()
    with pytest.raises(NotFoundError):
        await team.get(job_id=7)
    # Its request_id is still known and names nothing any more: the job gets an archive again.
    again = await team.create(7, "r1")
    assert again.id != first.id
    await team.ended(7)
    assert (await team.create(7, "r1")).id == again.id


async def test_what_is_not_over_stays(urls: DatabaseUrls, tmp_path: Path) -> None:
    async with open_house(urls, tmp_path, PACKAGER_BUILDS="1") as house:
        await house.job(7, 2)
        await house.job(8, 2)
        house.enqueue.errors = [UnavailableError("away")] * 10_000
        team = house.team()
        await team.create(7)
        await team.ended(7)
        house.assets.faults.hang.add("BeginArchive")
        await team.create(8)
        await _aged(house, "archives", "created_at", 400)
        await _aged(house, "archives", "finished_at", 400)
        await retention_of(house.app.deps, AGES).round()
        await team.get(job_id=7)  # enqueue has not heard of it
        assert (await team.get(job_id=8)).state == PENDING


async def test_steps_are_bounded_and_keys_go_by_their_own_age(house: House) -> None:
    team = house.team()
    await house.job(7, 2)
    for number in range(5):
        await team.create(7, f"r{number}")
    await _aged(house, "idempotency_keys", "created_at", 6)
    assert not await retention_of(house.app.deps, AGES).round()
    await _aged(house, "idempotency_keys", "created_at", 2)
    await team.create(7, "young")
    left = []
    for _ in range(3):
        more = await retention_of(house.app.deps, AGES, step_rows=2).round()
        left.append((await _count(house), more))
    assert left == [(4, True), (2, True), (1, False)]


async def _count(house: House) -> int:
    return int((await house.sql("SELECT count(*) FROM idempotency_keys"))[0][0])


async def _reported(house: House) -> bool:
    rows = await house.sql("SELECT count(*) FROM archives WHERE report_at IS NOT NULL")
    return int(rows[0][0]) == 0
