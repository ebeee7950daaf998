"""Copies brought back that do not fit each other: each ends as docs/OPERATIONS.md says."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from contentshop.enqueue.v1 import job_pb2
from libs.common.errors import DataLossError, NotFoundError
from tests.support.backups import Backup, read_bucket, restore, run, take_backup
from tests.support.eventually import eventually
from tests.support.fleet import Fleet, Servers, running_fleet
from tests.support.fleet_team import FleetTeam
from tests.support.invariants import check_invariants

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("show_logs")]

PHOTO = (Path(__file__).parents[2] / "examples" / "photos" / "mug.jpg").read_bytes()
SETTINGS = {
    "SWEEP_SECONDS": "0.5",
    "ARCHIVE_RING_SECONDS": "2",
    "PACKAGER_SWEEP_SECONDS": "0.5",
    "ASSETS_SWEEP_SECONDS": "0.5",
    "ASSETS_REMOVAL_SECONDS": "0",
    "GRACE_SECONDS": "1",
}
SERVICES = ("worker", "packager", "enqueue", "assets")


@pytest.fixture(scope="module")
async def fleet(servers: Servers) -> AsyncIterator[Fleet]:
    """Every test leaves it running."""
    async with running_fleet(servers, SETTINGS) as fleet:
        yield fleet


async def made(team: FleetTeam, request_id: str = "") -> job_pb2.Job:
    """A job of two images with its zip, all checked."""
    photo = await team.upload(PHOTO)
    job = await team.make_job(photo, 2, request_id=request_id)
    ended = (await team.watch(job.id)).job
    await team.check_done(ended)
    return ended


def files_of(*jobs: job_pb2.Job) -> set[int]:
    """Their images and zips."""
    images = {image.file_id for job in jobs for image in job.images}
    return images | {job.archive.file_id for job in jobs}


async def stop_all(fleet: Fleet) -> None:
    """Everything that would write."""
    async with asyncio.TaskGroup() as group:
        for service in SERVICES:
            group.create_task(fleet.terminate(service))


async def start_all(fleet: Fleet) -> None:
    """On the databases there are now."""
    for service in SERVICES:
        fleet.restart(service)
    await fleet.wait_ready()


async def is_gone(team: FleetTeam, file_ids: Collection[int]) -> None:
    """They are answered like files that never were."""
    for file_id in file_ids:
        with pytest.raises(NotFoundError):
            await team.download(file_id)


async def test_enqueue_older_than_the_rest_never_takes_an_old_jobs_images(
    fleet: Fleet, tmp_path: Path
) -> None:
    team = fleet.team()
    await fleet.grant(team, 100)
    kept = await made(team)
    await fleet.terminate("worker")
    waiting = await team.make_job(await team.upload(PHOTO), 2)
    backup = await take_backup(fleet, tmp_path / "backup")
    fleet.restart("worker")
    finished = (await team.watch(waiting.id)).job
    await team.check_done(finished)
    lost = await made(team, request_id="lost")

    await stop_all(fleet)
    await restore(fleet, backup, "enqueue")
    # As it is it would give the lost job's id to the next one; so it is not served.
    list(fleet.new_logs("restored"))
    fleet.restart("enqueue")
    await eventually(
        lambda: any('"database.restored"' in text for _, text in fleet.new_logs("restored")),
        timeout_seconds=60,
        what="enqueue refuses the restored database",
    )
    assert (await run(fleet, "enqueue", "after-restore")).code == 0
    await start_all(fleet)

    await team.check_done(await team.get(kept.id))
    with pytest.raises(NotFoundError):
        await team.get(lost.id)
    # What waited runs again, and finds its own images where they were left.
    again = (await team.watch(waiting.id)).job
    await team.check_done(again)
    assert files_of(again) == files_of(finished)
    # The client that never heard of the loss asks again, and gets another job's new images.
    new = await made(team, request_id="lost")
    assert new.id > lost.id
    assert not files_of(new) & files_of(kept, finished, lost)
    # Its images stay with the team until somebody deletes them.
    for file_id in files_of(lost):
        await team.delete(file_id)
    await check_invariants(fleet)


async def test_blobs_older_than_their_rows(fleet: Fleet, tmp_path: Path) -> None:
    team = fleet.team()
    await fleet.grant(team, 100)
    kept = await made(team)
    backup = await take_backup(fleet, tmp_path / "backup")
    hurt = await made(team)
    photo = await team.upload(PHOTO)
    whole = await asyncio.to_thread(read_bucket, fleet)
    newer = set(whole) - set(backup.blobs)
    client = fleet.servers.seaweed.client()
    for key in newer:
        await asyncio.to_thread(client.remove_object, fleet.bucket, key)

    # A command names what is missing; who asks for it is told, and nothing else is hurt.
    checked = await run(fleet, "assets", "check")
    assert checked.code == 1
    for file_id in (*files_of(hurt), photo.id):
        assert f"file {file_id} of team {team.name}: it has no blob\n" in checked.out
    assert checked.out.endswith(f", {len(newer)} without their bytes\n")
    for file_id in files_of(hurt):
        with pytest.raises(DataLossError):
            await team.download(file_id)
    await team.check_done(await team.get(kept.id))
    failed = (await team.watch((await team.make_job(photo, 2)).id)).job
    assert (failed.state, failed.error.reason) == (job_pb2.JOB_STATE_FAILED, "BAD_INPUT")

    # Whoever finds the bytes puts them back, and all is as before.
    for key in newer:
        data = whole[key]
        await asyncio.to_thread(client.put_object, fleet.bucket, key, io.BytesIO(data), len(data))
    assert (await run(fleet, "assets", "check")).code == 0
    await team.check_done(await team.get(hurt.id))
    await check_invariants(fleet)


async def test_assets_and_packager_older_than_enqueue(fleet: Fleet, tmp_path: Path) -> None:
    team = fleet.team()
    kept = await made(team)
    backup = await take_backup(fleet, tmp_path / "backup")
    lost = await made(team)
    upload = await team.upload(PHOTO)

    await stop_all(fleet)
    for service in ("assets", "packager"):
        await restore(fleet, backup, service)
        assert (await run(fleet, service, "after-restore")).code == 0
    assert (await run(fleet, "enqueue", "after-restore")).code == 0
    await start_all(fleet)

    await team.check_done(await team.get(kept.id))
    # The job says what it made; the files are gone, and no other takes their place.
    assert files_of(await team.get(lost.id)) == files_of(lost)
    await is_gone(team, [*files_of(lost), upload.id])
    new = await made(team)
    assert min(files_of(new)) > max(*files_of(lost), upload.id)
    await is_gone(team, files_of(lost))
    await assert_orphans_go(fleet, backup)
    await team.check_done(await team.get(kept.id))
    await team.check_done(new)


async def assert_orphans_go(fleet: Fleet, backup: Backup) -> None:
    """Blobs that no row knows are removed after the grace, and those alone."""
    before = set(await asyncio.to_thread(read_bucket, fleet))
    await fleet.terminate("assets")
    fleet.restart("assets", ASSETS_ORPHAN_SECONDS="1")  # nothing is stored meanwhile
    await fleet.wait_ready("assets")

    async def gone() -> bool:
        now = set(await asyncio.to_thread(read_bucket, fleet))
        assert set(backup.blobs) <= now
        # Two images, a zip, and two uploads have no row any more.
        return len(before - now) == 5

    await eventually(gone, timeout_seconds=60, what="orphans are gone")
    checked = await run(fleet, "assets", "check")
    assert (checked.code, checked.out.rpartition(", ")[2]) == (0, "0 without their bytes\n")
