"""What teams do all day, at a steady rate: everything that leaves something behind."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from contentshop.assets.v1 import assets_pb2, backend_pb2
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.errors import (
    ContentshopError,
    FailedPreconditionError,
    InvalidArgumentError,
    UnavailableError,
)
from tests.support.databases import ROOT
from tests.support.eventually import eventually
from tests.support.fleet_team import CHUNK_BYTES, PAUSE_SECONDS, FleetTeam, patiently

PHOTO = (ROOT / "examples" / "photos" / "mug.jpg").read_bytes()
# The smallest pictures there are: what is soaked is not drawing.
SMALL: dict[str, Any] = {"format": job_pb2.IMAGE_FORMAT_JPEG, "input": {"aspect_ratio": "21:9"}}
ROUND_SECONDS = 120.0
WATCHERS = 6
KEPT_ERRORS = 5


class Load:
    """Rounds of one team after another, each team's begun at a steady pace.

    Args:
        pace_seconds: from the beginning of a team's round to its next, if that is over.
    """

    def __init__(self, pace_seconds: float) -> None:
        self._pace = pace_seconds
        self.rounds: Counter[str] = Counter()
        self.errors: list[str] = []
        self.failed = 0
        self._rounds: tuple[Callable[[FleetTeam], Awaitable[None]], ...] = (
            plain,
            left_by_watchers,
            plain,
            batch,
            canceled,
            plain,
            edited,
            cut_short,
        )

    async def run(self, team: FleetTeam, number: int, until: float) -> None:
        """A team's rounds until the monotonic time `until`; the first is the number-th."""
        while (began := time.monotonic()) < until:
            do = self._rounds[number % len(self._rounds)]
            number += 1
            try:
                async with asyncio.timeout(ROUND_SECONDS):
                    await do(team)
            except (ContentshopError, AssertionError, TimeoutError) as error:
                self._count(do.__name__, error)
            self.rounds[do.__name__] += 1
            await asyncio.sleep(max(0.0, began + self._pace - time.monotonic()))

    def _count(self, name: str, error: BaseException) -> None:
        self.failed += 1
        if len(self.errors) < KEPT_ERRORS:
            self.errors.append(f"{name}: {''.join(traceback.format_exception(error)[-3:])}")


async def plain(team: FleetTeam) -> None:
    """Upload, generate, watch, download images and zip, delete."""
    photo = await team.upload(PHOTO)
    job = await watched(team, await team.make_job(photo, 2, **SMALL))
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
    for image in job.images:
        await team.download(image.file_id)
    await team.download_archive(job.id)
    await delete(team, job.images[0].file_id)
    await delete(team, photo.id)


async def left_by_watchers(team: FleetTeam) -> None:
    """Most of a job's watchers hang up after their first message."""
    photo = await team.upload(PHOTO)
    job = await team.make_job(photo, 2, **SMALL)
    async with asyncio.TaskGroup() as group:
        for _ in range(WATCHERS):
            group.create_task(_first(team.connect(job.id)))
        group.create_task(watched(team, job))
    await delete(team, photo.id)


async def batch(team: FleetTeam) -> None:
    """A batch, watched, and its zip."""
    photo = await team.upload(PHOTO)
    made = await team.make_batch(photo, ["a", "b", "c"], 1, **SMALL)
    await team.batch_ended(made.id)
    await team.make_archive(batch_id=made.id)
    await team.download_archive(batch_id=made.id)
    await delete(team, photo.id)


async def canceled(team: FleetTeam) -> None:
    """Two jobs, canceled at once and after the first event."""
    photo = await team.upload(PHOTO)
    first, second = [await team.make_job(photo, 4, **SMALL) for _ in range(2)]
    await _cancel(team, second.id)
    await _first(team.connect(first.id))
    await _cancel(team, first.id)
    for job in (first, second):
        await watched(team, job)
    await delete(team, photo.id)


async def edited(team: FleetTeam) -> None:
    """An edit of an upload, retouched again."""
    photo = await team.upload(PHOTO)
    first = await watched(team, await team.make_edit(photo.id, "brighter"))
    second = await watched(team, await team.make_edit(first.images[0].file_id, "darker"))
    assert second.state == job_pb2.JOB_STATE_SUCCEEDED, second
    await delete(team, photo.id)


async def cut_short(team: FleetTeam) -> None:
    """An upload and a download that are hung up on, a job of a file that is not there."""
    photo = await team.upload(PHOTO)
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[assets_pb2.UploadFileRequest]:
        yield assets_pb2.UploadFileRequest(
            header=assets_pb2.UploadHeader(filename="p.jpg", size_bytes=len(PHOTO))
        )
        yield assets_pb2.UploadFileRequest(chunk=PHOTO[:CHUNK_BYTES])
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        upload = group.create_task(
            team._call(team._assets, team._files.UploadFile, endless()),
        )
        await begun.wait()
        upload.cancel()
    request = assets_pb2.DownloadFileRequest(file_id=photo.id)
    await _first(team._assets.stream(team._files.DownloadFile, request))
    try:
        await team.ask(
            "EnqueueGeneration",
            enqueue_pb2.EnqueueGenerationRequest(
                product_images=[backend_pb2.ImageRef(file_id=2**40)], number_of_variations=1
            ),
        )
    except InvalidArgumentError:
        await delete(team, photo.id)
    else:
        raise AssertionError("a job of nothing")


async def watched(team: FleetTeam, job: job_pb2.Job) -> job_pb2.Job:
    """The job at its end."""
    cursor = 0
    while True:
        try:
            async for message in team.connect(job.id, cursor):
                cursor = message.sequence
                if message.final:
                    return message.job
        except UnavailableError:  # the server's own limit of a connection's life
            await asyncio.sleep(PAUSE_SECONDS)


async def delete(team: FleetTeam, file_id: int) -> None:
    """Deletes a file, once its job's end has come to assets."""

    async def deleted() -> bool:
        try:
            await team.delete(file_id)
        except FailedPreconditionError:
            return False
        return True

    await eventually(lambda: patiently(deleted), timeout_seconds=60, what="file deleted")


async def _cancel(team: FleetTeam, job_id: int) -> None:
    try:
        await team.cancel(job_id)
    except FailedPreconditionError:
        return  # it was quicker


async def _first(stream: AsyncIterator[Any]) -> None:
    """Hangs up after the first message."""
    async with aclosing(stream) as messages:  # type: ignore[type-var]
        async for _ in messages:
            return
