"""WatchArchive: as it stands, each change, heartbeats, the end; by any packager of the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contentshop.packager.v1 import packager_pb2 as pb
from libs.common import env
from libs.common.errors import NotFoundError, ResourceExhaustedError, UnavailableError
from services.packager.app import build
from services.packager.settings import Settings
from tests.integration.packager.house import FAILED, PENDING, READY, House, open_house
from tests.support.databases import DatabaseUrls, PostgresTemplates
from tests.support.eventually import eventually
from tests.support.fleet_team import patiently


async def test_a_watch_ends_with_the_zip(house: House) -> None:
    await house.batch(5)
    house.assets.faults.hang.add("BeginArchive")
    team = house.team()
    archive = await team.ask(batch_id=5)
    await eventually(lambda: "BeginArchive" in house.assets.calls)
    watch = team.watch(batch_id=5)
    first = await anext(watch)
    assert (first.archive.id, first.archive.state, first.final) == (archive.id, PENDING, False)
    house.assets.faults.hang.clear()
    await house.restart()  # hands the build back; a hanging call hangs on
    with pytest.raises(UnavailableError):
        await _all(watch)
    messages = await _all(house.team().watch(batch_id=5))
    last = messages[-1]
    assert last.final
    assert (last.archive.state, last.images_written) == (READY, 3)
    assert [message.final for message in messages[:-1]] == [False] * (len(messages) - 1)


async def test_what_is_over_is_told_at_once(house: House) -> None:
    await house.job(7, 2)
    await house.job(8, 2)
    house.assets.files.pop(802)
    team = house.team()
    await team.create(7)
    await team.create(8)
    ready, failed = await team.ended(7), await team.ended(8, FAILED)
    for key, archive in (({"job_id": 7}, ready), ({"archive_id": failed.id}, failed)):
        (only,) = await _all(team.watch(**key))
        assert only.archive == archive
        assert only.final
    with pytest.raises(NotFoundError):
        await _all(team.watch(job_id=9))


async def test_many_watchers_of_one_archive_all_hear_the_end(
    urls: DatabaseUrls, tmp_path: Path
) -> None:
    async with open_house(urls, tmp_path, HEARTBEAT_SECONDS="0.1") as house:
        await house.job(7, 2)
        gate = house.assets.faults.gate("StoreArchive")
        team = house.team()
        await team.create(7)
        silent = asyncio.Event()

        async def watch() -> pb.WatchArchiveResponse:
            newest = pb.WatchArchiveResponse()
            async for message in team.watch(job_id=7):
                newest = message
                if not message.HasField("archive"):
                    silent.set()
            return newest

        async with asyncio.TaskGroup() as group:
            # Fifty read for themselves as they open, by five connections: some may be sent away.
            watches = [group.create_task(patiently(watch)) for _ in range(50)]
            await eventually(lambda: house.app.hub.watchers == 50)
            await silent.wait()  # a heartbeat came
            gate.set()
        assert {task.result().archive.state for task in watches} == {READY}
        await eventually(lambda: house.app.hub.watchers == 0)


async def test_the_limit_of_streams_counts_watches(urls: DatabaseUrls, tmp_path: Path) -> None:
    async with open_house(urls, tmp_path, MAX_STREAMS_PER_TEAM="1") as house:
        await house.job(7, 2)
        house.assets.faults.hang.add("BeginArchive")
        team = house.team()
        await team.create(7)
        first = team.watch(job_id=7)
        await anext(first)
        with pytest.raises(ResourceExhaustedError) as raised:
            await _all(team.watch(job_id=7))
        assert raised.value.reason == "TOO_MANY_STREAMS"
        await first.aclose()


@pytest.mark.real
async def test_progress_and_end_are_seen_at_another_packager(
    postgres_templates: PostgresTemplates, tmp_path: Path
) -> None:
    async with open_house(postgres_templates.database("packager"), tmp_path) as house:
        await house.batch(5, [("a", 3)])
        gate = house.assets.faults.gate("StoreArchive")
        await house.team().ask(batch_id=5)
        await eventually(lambda: "StoreArchive" in house.assets.calls)
        # The other one builds nothing: the only archive has its builder.
        other = build(env.load(Settings, house.environ), broker=house.broker)
        await other.start()
        try:
            team = house.team(app=other)
            seen = []
            async for message in team.watch(batch_id=5):
                seen.append((message.archive.state, message.images_written))
                if message.images_written == 3:  # a round amid the writing tells of fewer
                    gate.set()
            # All were in the zip while it was not yet stored: written by the builder's duty.
            assert (PENDING, 3) in seen
            assert seen[-1] == (READY, 3)
        finally:
            await other.stop()


async def test_a_watched_archive_that_is_removed_ends_the_watch(house: House) -> None:
    await house.job(7, 2)
    house.assets.faults.hang.add("BeginArchive")
    team = house.team()
    archive = await team.create(7)
    watch = team.watch(archive_id=archive.id)
    await anext(watch)
    await house.sql("DELETE FROM archives")
    with pytest.raises(NotFoundError):
        await _all(watch)


async def _all(watch: AsyncIterator[pb.WatchArchiveResponse]) -> list[pb.WatchArchiveResponse]:
    return [message async for message in watch]
