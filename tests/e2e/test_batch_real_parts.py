"""The largest batch there is, on PostgreSQL, RabbitMQ and S3, its workers killed twice on the way.

Nothing is lost, and nothing is there twice. With 2 cores, busy with other work, it takes 35 s.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from contentshop.assets.v1 import assets_pb2
from contentshop.enqueue.v1 import batch_pb2, job_pb2
from contentshop.packager.v1 import packager_pb2
from tests.support.eventually import eventually
from tests.support.fleet import Fleet, Servers, running_fleet
from tests.support.fleet_batch import BatchWatched, FleetBatch
from tests.support.fleet_team import FleetTeam
from tests.support.invariants import check_invariants
from tests.support.zips import read_strictly

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("show_logs"), pytest.mark.timeout(400)]

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "mug.jpg"
VARIANTS, EACH = 100, 4
IMAGES = VARIANTS * EACH
KILLS = 2
SPARE = 7  # credits beyond what the batch takes
# Short floors, so that healing is quick; images that a kill finds in the making.
SETTINGS = {
    "OFFLINE_DELAY_SECONDS": "0.3",
    "MAX_LOST_WORKERS": "20",
    "SWEEP_SECONDS": "0.5",
    "PACKAGER_SWEEP_SECONDS": "0.5",
    "ASSETS_SWEEP_SECONDS": "0.5",
    "ASSETS_REMOVAL_SECONDS": "0",
}
END_SECONDS = 300.0


@pytest.fixture(scope="module")
async def fleet(servers: Servers) -> AsyncIterator[Fleet]:
    """With two workers."""
    async with running_fleet(servers, SETTINGS, workers=2) as fleet:
        yield fleet


@dataclass(frozen=True)
class Proof:
    """The batch and who asks about it."""

    fleet: Fleet
    team: FleetTeam
    batch: FleetBatch

    async def kill_the_workers(self) -> None:
        """kill -9 of all, and new ones."""
        self.fleet.kill("worker")
        held = await self.batch.credits()
        assert held.granted == held.available + held.held + held.captured == IMAGES + SPARE
        self.fleet.restart("worker")
        await self.fleet.wait_ready("worker")


async def test_a_batch_outlives_its_workers_twice(fleet: Fleet) -> None:
    began = time.monotonic()
    team = fleet.team()
    await fleet.grant(team, IMAGES + SPARE)
    photo = await team.upload(PHOTO.read_bytes())
    # The smallest pictures there are: what is proved is not drawing.
    made = await team.make_batch(
        photo,
        [f"v{number:03}" for number in range(1, VARIANTS + 1)],
        EACH,
        format=job_pb2.IMAGE_FORMAT_JPEG,
        input={"aspect_ratio": "21:9"},
    )
    proof = Proof(fleet, team, FleetBatch(team, made.id))
    seen = await _watched_over_two_kills(proof)
    ended = time.monotonic()
    jobs = await _check_jobs(proof, seen)
    images = await _check_files(proof, jobs)
    await _check_zip(proof, jobs, images)
    zipped = time.monotonic()
    left = await proof.batch.credits()
    assert (left.granted, left.held) == (IMAGES + SPARE, 0)
    assert (left.available, left.captured) == (SPARE, IMAGES)
    await check_invariants(fleet)
    figures = f"over after {ended - began:.1f} s, zipped after {zipped - began:.1f} s"
    sys.stderr.write(f"{IMAGES} images: {figures}\n")  # pytest -s shows it


async def _watched_over_two_kills(proof: Proof) -> BatchWatched:
    """Watched to the final message; at each kill the watcher hangs up and comes back too."""
    seen = BatchWatched()
    async with asyncio.timeout(END_SECONDS), asyncio.TaskGroup() as group:
        watching = group.create_task(proof.batch.watch(seen))
        for kill in range(1, KILLS + 1):
            enough = IMAGES * kill // (KILLS + 1)
            await eventually(
                partial(seen.has_done, enough),
                timeout_seconds=END_SECONDS,
                what=f"image {enough}",
            )
            watching.cancel()
            await proof.kill_the_workers()
            watching = group.create_task(proof.batch.watch(seen))
    assert seen.connections > KILLS
    return seen


async def _check_jobs(proof: Proof, seen: BatchWatched) -> list[job_pb2.Job]:
    """Every job SUCCEEDED with its images; the watcher was told so. By variant."""
    batch = await proof.batch.get()
    assert batch.state == seen.batch.state == batch_pb2.BATCH_STATE_SUCCEEDED
    assert (batch.jobs.total, batch.jobs.succeeded) == (VARIANTS, VARIANTS)
    assert (batch.images.total, batch.images.done) == (IMAGES, IMAGES)
    jobs = sorted(await proof.batch.jobs(), key=lambda job: job.variant_index)
    assert [job.id for job in jobs] == list(batch.job_ids)
    assert {job.state for job in jobs} == {job_pb2.JOB_STATE_SUCCEEDED}
    assert {job.archive.state for job in jobs} == {job_pb2.ARCHIVE_STATE_READY}
    # The kills were felt, and held against no job.
    assert sum(job.lost_workers for job in jobs) >= KILLS
    assert {job.attempts for job in jobs} == {1}
    wanted = {(job.id, image.index) for job in jobs for image in job.images}
    assert len(wanted) == IMAGES
    assert len(seen.done) == len(set(seen.done))
    if seen.skips:
        assert set(seen.done) <= wanted
    else:
        assert set(seen.done) == wanted
        numbers = {job.id: list(range(1, job.last_sequence + 1)) for job in jobs}
        assert seen.events == numbers
    return jobs


async def _check_files(proof: Proof, jobs: list[job_pb2.Job]) -> dict[int, assets_pb2.File]:
    """As many images are shown as were made, each in its variant's folder and the batch's."""
    wanted = {job.variant: {image.file_id for image in job.images} for job in jobs}
    every = set[int]().union(*wanted.values())

    async def filed() -> list[assets_pb2.Folder]:
        folders = await proof.batch.folders()
        assert len(folders) == VARIANTS + 1
        assert sum(folder.file_count for folder in folders) == 2 * IMAGES
        return folders

    folders = await eventually(filed, timeout_seconds=60)
    images = {file.id: file for file in await proof.batch.images()}
    assert set(images) == every
    found: dict[str, set[int]] = defaultdict(set)
    for folder in folders:
        files = {file.id for file in await proof.batch.files_in(folder.id)}
        if folder.kind == assets_pb2.FOLDER_KIND_BATCH:
            assert files == every
        else:
            found[folder.name] = files
    assert found == wanted
    return images


async def _check_zip(
    proof: Proof, jobs: list[job_pb2.Job], images: dict[int, assets_pb2.File]
) -> None:
    """A folder for each variant with its images in order, every byte as it was stored."""
    archive = await proof.team.make_archive(batch_id=proof.batch.id)
    assert archive.state == packager_pb2.ARCHIVE_STATE_READY, archive
    assert archive.image_count == IMAGES
    data = await proof.team.download_archive(batch_id=proof.batch.id)
    wanted = [
        (f"{job.variant}/image-{image.index}.jpg", images[image.file_id].sha256)
        for job in jobs
        for image in job.images
    ]
    names = [entry.name for entry in read_strictly(data).entries]
    assert names == [*(name for name, _ in wanted), "manifest.json"]
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.testzip() is None
        assert [
            (name, hashlib.sha256(found.read(name)).hexdigest()) for name in names[:-1]
        ] == wanted
    asked = assets_pb2.GetFileRequest(file_id=archive.file_id)
    file = (await proof.team.ask_assets("GetFile", asked)).file
    assert (file.size_bytes, file.provenance.batch_id) == (len(data), proof.batch.id)
