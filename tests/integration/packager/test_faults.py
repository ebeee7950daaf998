"""What the packager does when others fail: assets away, images gone or damaged, answers lost."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from contentshop.enqueue.v1 import job_pb2
from libs.common import env
from libs.common.errors import (
    DataLossError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from services.packager.app import build
from services.packager.settings import Settings
from tests.integration.packager.house import (
    FAILED,
    PATIENCE_SECONDS,
    House,
    check_archive,
    open_house,
)
from tests.support.databases import DatabaseUrls, PostgresTemplates, sqlite_database
from tests.support.eventually import eventually


async def test_assets_away_for_a_while_costs_time_only(house: House) -> None:
    images = await house.job(7, 2)
    away = [UnavailableError("away")]
    house.assets.faults.errors = {
        "ResolveImages": list(away),
        "BeginArchive": list(away),
        "StoreArchive": list(away),
    }
    await house.announce(7)
    await house.reported()
    check_archive((await house.team().download(job_id=7))[1], 7, images)
    # The zip was written once: only its storing was repeated.
    assert house.assets.calls.count("BeginArchive") == 2


async def test_assets_restarted_is_found_again(urls: DatabaseUrls, tmp_path: Path) -> None:
    async with open_house(urls, tmp_path, PACKAGER_RETRY_SECONDS="0.2") as house:
        images = await house.job(7, 2)
        await house.assets.stop()
        await house.announce(7)

        async def tried() -> bool:
            return await house.sql("SELECT id FROM archives WHERE attempts > 0") != []

        await eventually(tried)
        await house.assets.start()
        await house.reported()
        check_archive((await house.team().download(job_id=7))[1], 7, images)


async def test_a_lost_answer_of_store_archive_leaves_one_file(house: House) -> None:
    await house.job(7, 2)
    house.assets.faults.lose_answers["StoreArchive"] = 2
    await house.announce(7)
    (report,) = await house.reported()
    assert house.assets.archives() == [report.file_id]
    assert house.assets.calls.count("BeginArchive") == 1


async def test_a_vanished_blob_behind_a_written_zip_starts_anew(house: House) -> None:
    images = await house.job(7, 2)
    house.assets.faults.errors["StoreArchive"] = [UnavailableError("away")]
    gate = house.assets.faults.gate("StoreArchive")  # no second try before the blob is gone
    await house.announce(7)
    await eventually(lambda: "StoreArchive" in house.assets.calls)
    (name,) = _names(house, "t/archives")
    path = house.assets.root / "t/archives" / name
    first = await asyncio.to_thread(path.read_bytes)
    await asyncio.to_thread(path.unlink)
    gate.set()
    await house.reported()
    data = (await house.team().download(job_id=7))[1]
    check_archive(data, 7, images)
    assert data == first  # equal inputs give equal bytes
    assert house.assets.calls.count("BeginArchive") == 2


async def test_a_missing_image_fails_the_zip_and_create_tries_again(house: House) -> None:
    images = await house.job(7, 3)
    gone = house.assets.files.pop(702)
    await house.announce(7)
    (report,) = await house.reported()
    assert report.state == job_pb2.ARCHIVE_STATE_FAILED
    assert report.error.reason == "INPUT_MISSING"
    assert report.file_id == 0
    team = house.team()
    failed = await team.ended(7, FAILED)
    assert (failed.error_reason, failed.file_id) == ("INPUT_MISSING", 0)
    assert failed.HasField("finish_time")
    assert house.assets.calls == ["ResolveImages"] * 5

    house.assets.files[702] = gone
    again = await team.create(7)
    assert again.id == failed.id
    assert not again.error_reason
    await team.ended(7)
    check_archive((await team.download(job_id=7))[1], 7, images)
    assert (await house.reported(2))[-1].state == job_pb2.ARCHIVE_STATE_READY


async def test_a_failure_enqueue_has_heard_of_is_tried_again_when_it_wants_the_zip(
    house: House,
) -> None:
    images = await house.job(7, 2)
    gone = house.assets.files.pop(702)
    await house.announce(7)
    await house.reported()
    await eventually(lambda: _all_told(house))
    # Where the report is still owed it is only made: the message rang for what it says.
    await house.sql("UPDATE archives SET report_at = '2999-01-01T00:00:00+00:00'")
    await house.announce(7)
    reports = await house.reported(2)
    assert [report.state for report in reports] == [job_pb2.ARCHIVE_STATE_FAILED] * 2
    await eventually(lambda: _all_told(house))
    assert house.assets.calls.count("ResolveImages") == 5
    # It was approved since.
    house.assets.files[702] = gone
    await house.announce(7)
    assert (await house.reported(3))[-1].state == job_pb2.ARCHIVE_STATE_READY
    assert house.assets.calls.count("ResolveImages") == 6
    check_archive((await house.team().download(job_id=7))[1], 7, images)


async def _all_told(house: House) -> bool:
    return await house.sql("SELECT id FROM archives WHERE report_at IS NOT NULL") == []


async def test_a_replayed_create_does_not_try_again(house: House) -> None:
    await house.job(7, 2)
    house.assets.files.pop(702)
    team = house.team()
    await team.create(7, "r1")
    failed = await team.ended(7, FAILED)
    assert await team.create(7, "r1") == failed


async def test_an_image_whose_blob_is_gone_is_missing(house: House) -> None:
    await house.job(7, 2)
    await asyncio.to_thread(house.assets.path_of(701).unlink)
    await house.announce(7)
    (report,) = await house.reported()
    assert report.error.reason == "INPUT_MISSING"
    assert _names(house, "t/archives") == []


@pytest.mark.parametrize("damage", ["flipped", "short", "long"])
async def test_a_damaged_image_fails_the_zip_and_nothing_can_be_read(
    house: House, damage: str
) -> None:
    await house.job(7, 3)
    await asyncio.to_thread(_damage, house.assets.path_of(703), damage)
    await house.announce(7)
    (report,) = await house.reported()
    assert report.state == job_pb2.ARCHIVE_STATE_FAILED
    assert report.error.reason == "DATA_LOSS"
    assert _names(house, "t/archives") == []
    assert _names(house, ".tmp") == []
    assert house.assets.calls.count("ResolveImages") == 2


async def test_a_damaged_zip_is_not_handed_out_whole(house: House) -> None:
    await house.job(7, 12)
    await house.announce(7)
    team = house.team()
    archive = await team.ended()
    await asyncio.to_thread(_damage, house.assets.path_of(archive.file_id), "flipped")
    got: list[int] = []

    async def read() -> None:
        async for part in team.parts(job_id=7):
            got.append(len(part.chunk))  # noqa: PERF401 - kept when the call fails

    with pytest.raises(DataLossError):
        await read()
    assert 0 < sum(got) < archive.size_bytes


async def test_a_full_store_is_storage_unavailable(house: House) -> None:
    await house.job(7, 2)
    house.assets.faults.errors["BeginArchive"] = [ResourceExhaustedError("full")] * 5
    await house.announce(7)
    (report,) = await house.reported()
    assert report.error.reason == "STORAGE_UNAVAILABLE"


async def test_a_report_that_does_not_arrive_is_made_again(house: House) -> None:
    await house.job(7, 2)
    house.enqueue.errors = [UnavailableError("away")] * 3
    await house.announce(7)
    await house.reported()


async def test_a_report_nobody_wants_is_not_repeated(house: House) -> None:
    await house.job(7, 2, state=job_pb2.JOB_STATE_CANCELED)
    await house.job(8, 2)
    house.enqueue.errors = [NotFoundError("job")]
    team = house.team()
    await team.create(7)
    await team.ended(7)
    await eventually(lambda: not house.enqueue.errors)
    await house.announce(8)
    reports = await house.reported()
    assert [report.job_id for report in reports] == [8]


async def test_stop_in_the_middle_hands_back_without_counting(house: House) -> None:
    images = await house.job(7, 2)
    house.assets.faults.hang.add("StoreArchive")
    await house.announce(7)
    await eventually(lambda: "StoreArchive" in house.assets.calls)
    for _ in range(6):  # more often than there are attempts
        house.assets.calls.clear()
        await house.restart()
        await eventually(lambda: "StoreArchive" in house.assets.calls)
    house.assets.faults.hang.clear()
    await house.restart()
    await house.reported()
    check_archive((await house.team().download(job_id=7))[1], 7, images)
    assert len(house.assets.archives()) == 1


async def test_a_zip_that_kills_packagers_is_given_up(tmp_path: Path) -> None:
    urls = sqlite_database("packager", tmp_path)
    async with open_house(urls, tmp_path) as house:
        await house.job(7, 2)
        house.assets.faults.hang.add("BeginArchive")
        await house.announce(7)
        await eventually(lambda: "BeginArchive" in house.assets.calls)
        with closing(sqlite3.connect(tmp_path / "packager.db", timeout=60)) as database, database:
            database.execute("UPDATE archives SET attempts = 6")  # the stop gives one back
        await house.restart()
        (report,) = await house.reported()
        assert report.error.reason == "INTERNAL"
        assert house.assets.calls.count("BeginArchive") == 1


@pytest.mark.real
async def test_two_packagers_of_one_database_share_the_work(
    postgres_templates: PostgresTemplates, tmp_path: Path
) -> None:
    async with open_house(postgres_templates.database("packager"), tmp_path) as house:
        other = build(env.load(Settings, house.environ), broker=house.broker)
        await other.start()
        try:
            for job_id in range(1, 21):
                await house.job(job_id, 2)
                await house.announce(job_id)
                await house.announce(job_id)
            # Of each; a report may come twice, for both look after those that nobody confirmed.
            told = house.enqueue.reports
            await eventually(
                lambda: len({report.job_id for report in told}) == 20,
                timeout_seconds=PATIENCE_SECONDS,
            )
        finally:
            await other.stop()
        files = [house.assets.files[file_id].job_id for file_id in house.assets.archives()]
        assert sorted(files) == list(range(1, 21))


async def test_a_long_build_keeps_its_lease(tmp_path: Path) -> None:
    urls = sqlite_database("packager", tmp_path)
    # Renewed after three seconds: a machine may stall for the other six.
    async with open_house(urls, tmp_path, PACKAGER_LEASE_SECONDS="9") as house:
        await house.job(7, 2)
        house.assets.faults.gate("ResolveImages")
        await house.announce(7)
        await eventually(lambda: "ResolveImages" in house.assets.calls)
        [(taken_until,)] = await house.sql("SELECT lease_until FROM archives")

        async def renewed() -> bool:
            [(until,)] = await house.sql("SELECT lease_until FROM archives")
            return bool(until > taken_until)

        await eventually(renewed)
        assert house.assets.calls == ["ResolveImages"]


async def test_the_next_attempt_keeps_its_lease_when_the_one_before_ends(tmp_path: Path) -> None:
    urls = sqlite_database("packager", tmp_path)
    async with open_house(urls, tmp_path, PACKAGER_LEASE_SECONDS="9") as house:
        await house.job(7, 2)
        gate = house.assets.faults.gate("ResolveImages")
        await house.announce(7)
        await eventually(lambda: len(house.assets.calls) == 1)
        await house.sql("UPDATE archives SET lease_until = NULL")  # the same packager takes it anew
        await eventually(lambda: len(house.assets.calls) == 2, timeout_seconds=PATIENCE_SECONDS)
        [(taken_until,)] = await house.sql("SELECT lease_until FROM archives")

        async def renewed() -> bool:
            [(until,)] = await house.sql("SELECT lease_until FROM archives")
            return bool(until > taken_until)

        await eventually(renewed, timeout_seconds=PATIENCE_SECONDS)
        gate.set()
        await house.reported()
        assert house.assets.calls.count("BeginArchive") == 1  # the one before was broken off


def _damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    elif how == "short":
        del data[-1]
    else:
        data += b"x"
    path.write_bytes(data)


def _names(house: House, folder: str) -> list[str]:
    path = house.assets.root / folder
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []
