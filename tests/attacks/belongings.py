"""What teams own for the matrix: one of each thing, another team's, and one that is gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2
from contentshop.enqueue.v1 import enqueue_pb2, ops_pb2
from contentshop.packager.v1 import packager_pb2
from libs.common.db import Database
from libs.common.errors import NotFoundError
from services.assets import tables as assets_tables
from services.assets.domain import Upload
from services.assets.store import pending
from services.enqueue import tables as enqueue_tables
from services.packager import tables as packager_tables
from tests.attacks.house import CLOCK, METHODS, House, headers_for
from tests.support.eventually import eventually
from tests.support.fleet_team import FleetTeam

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "mug.jpg"
OLD = timedelta(days=5_000)  # past every age of retention
UNKNOWN = 2**62
GONE_SECONDS = 60.0


@dataclass(frozen=True)
class Belongings:
    """One id of each kind."""

    file: int
    archive_file: int
    job: int
    batch: int
    folder: int
    moodboard: int
    archive: int
    upload: int
    variant: str

    def of(self, kind: str) -> int | str:
        """The id of a kind; of an upload URL its file's."""
        found: int | str = getattr(self, "file" if kind == "upload_url" else kind)
        return found


NOBODYS = Belongings(
    file=UNKNOWN,
    archive_file=UNKNOWN,
    job=UNKNOWN,
    batch=UNKNOWN,
    folder=UNKNOWN,
    moodboard=UNKNOWN,
    archive=UNKNOWN,
    upload=UNKNOWN,
    variant="nobody's",
)


async def make(house: House, name: str) -> Belongings:
    """A team's things: a batch of one job with two images, its folder and all their archives."""
    team = house.team(name)
    photo = await team.upload(PHOTO.read_bytes())
    kept = await team.upload(PHOTO.read_bytes())
    batch = await team.make_batch(photo, [f"variant of {name}"])
    job = (await team.watch(batch.job_ids[0])).job
    shared = await team.folder_of(batch.id, 2)
    for source in ({"batch_id": batch.id}, {"folder_id": shared}):
        archive = await team.make_archive(**source)
        assert archive.state == packager_pb2.ARCHIVE_STATE_READY
    of_job = await team.archive(job.id)
    content = assets_pb2.MoodboardContent(name="Mood", positive_file_ids=[kept.id])
    request = assets_pb2.CreateMoodboardRequest(content=content)
    moodboard = await team.ask_assets("CreateMoodboard", request)
    variant = assets_pb2.Variant(id=f"variant of {name}", product="Mug")
    await team.ask_assets("PutVariants", assets_pb2.PutVariantsRequest(variants=[variant]))
    return Belongings(
        file=photo.id,
        archive_file=of_job.file_id,
        job=job.id,
        batch=batch.id,
        folder=shared,
        moodboard=moodboard.moodboard.id,
        archive=of_job.id,
        upload=await _pending_upload(house, name, 3_600.0),
        variant=variant.id,
    )


async def _pending_upload(house: House, team: str, seconds: float) -> int:
    """An upload by URL as CreateUpload keeps it, which only a store with public URLs begins."""
    said = Upload("photo.jpg", "image/jpeg", 1_000, "")
    db = _database(house, "assets")
    try:
        async with db.transaction(team) as tx:
            return (await pending.add(tx, team, f"token-{team}-{seconds}", said, seconds)).id
    finally:
        await db.stop()


def _database(house: House, service: str) -> Database:
    urls = house.urls[service]
    return Database(urls.app, duty_url=urls.duty, clock=CLOCK, pool_size=2)


async def remove(house: House, name: str, doomed: Belongings) -> Belongings:
    """Deletes all of it as it goes in life: by its call, or by retention for its age.

    A variant has no way to go; its row asks with one that never was.
    """
    team = house.team(name)
    await team.ask_assets(
        "DeleteMoodboard", assets_pb2.DeleteMoodboardRequest(moodboard_id=doomed.moodboard)
    )
    for file in await team.files(doomed.job):
        await team.delete(file.id)
    await team.delete(doomed.file)
    expired = await _pending_upload(house, name, -3_600.0)
    await _age(house, "packager", packager_tables.archives, "finished_at")
    await _age(house, "enqueue", enqueue_tables.jobs, "finished_at", "created_at")
    await _age(house, "enqueue", enqueue_tables.batches, "created_at")
    await _age(house, "assets", assets_tables.folders, "created_at")
    await eventually(
        lambda: _all_gone(team, doomed), timeout_seconds=GONE_SECONDS, what="retention"
    )
    return replace(doomed, upload=expired, variant=NOBODYS.variant)


async def _age(house: House, service: str, table: sa.Table, *columns: str) -> None:
    """Lets all rows be so old that retention takes them; so the doomed come first."""
    db = _database(house, service)
    try:
        async with db.duty() as tx:
            await tx.execute(sa.update(table).values({c: CLOCK.now() - OLD for c in columns}))
    finally:
        await db.stop()


async def _all_gone(team: FleetTeam, doomed: Belongings) -> bool:
    asks = (
        team.get(doomed.job),
        team.ask("GetBatch", enqueue_pb2.GetBatchRequest(batch_id=doomed.batch)),
        team.ask_assets("GetFolder", assets_pb2.GetFolderRequest(folder_id=doomed.folder)),
        team.archive(doomed.job),
    )
    gone = 0
    for ask in asks:
        try:
            await ask
        except NotFoundError:
            gone += 1
    return gone == len(asks)


async def pause_lanes(house: House) -> None:
    """Nothing that is enqueued from now on is made: the matrix enqueues a lot."""
    method = next(m for m in METHODS if m.descriptor.name == "PauseLane")
    for quality in ("fast", "high"):
        for of in ("image_generation", "image_edit"):
            request = ops_pb2.PauseLaneRequest(lane=f"{of}.{quality}", reason="the matrix")
            answer = await house.call(method, request.SerializeToString(), headers_for(method))
            assert answer.code == "OK", answer


async def grant(house: House, team: str) -> None:
    """Credits, so that jobs leave entries in a ledger."""
    method = next(m for m in METHODS if m.descriptor.name == "GrantCredits")
    request = ops_pb2.GrantCreditsRequest(request_id=f"to-{team}", team=team, amount=1_000)
    answer = await house.call(method, request.SerializeToString(), headers_for(method))
    assert answer.code == "OK", answer
