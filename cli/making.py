"""From a wish to images on disk: upload, enqueue, follow, save."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from cli import progress, words
from cli.connection import Connection, connect
from cli.errors import CliError, ExitCode
from cli.files import Photo, Uploader, make_folder
from cli.following import follow
from cli.output import Output
from cli.plain import to_plain
from cli.running import run
from cli.saving import OUT, Savings, default_folder, save_job, show_saved
from contentshop.assets.v1 import assets_pb2
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.errors import ContentshopError

_QUALITIES = {"fast": job_pb2.QUALITY_FAST, "high": job_pb2.QUALITY_HIGH}
_FORMATS = {
    "png": job_pb2.IMAGE_FORMAT_PNG,
    "jpeg": job_pb2.IMAGE_FORMAT_JPEG,
    "webp": job_pb2.IMAGE_FORMAT_WEBP,
}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What every job is asked with; images are `FILE`, file id or upload URL."""

    values: Mapping[str, str] = field(default_factory=dict)
    variations: int = 1
    quality: str = "fast"
    image_format: str = "png"
    workflow: str = ""
    request_id: str = ""

    async def enqueue(self, shop: Connection, uploader: Uploader, key: str) -> job_pb2.Job:
        """Uploads what must be and enqueues; asking again with the same key is harmless."""
        raise NotImplementedError

    def fill(self, request: Any, key: str) -> None:
        """The fields that generations and edits share."""
        request.request_id = key
        request.schema_key = self.workflow
        request.number_of_variations = self.variations
        request.quality = _QUALITIES[self.quality]
        request.format = _FORMATS[self.image_format]
        request.input.update({name: value for name, value in self.values.items() if value})


@dataclass(frozen=True, kw_only=True)
class GenerationWish(Wish):
    """New images of products."""

    product_images: Sequence[str]
    model_image: str = ""
    background_image: str = ""
    moodboard_images: Sequence[str] = ()
    avoid_images: Sequence[str] = ()

    async def enqueue(self, shop: Connection, uploader: Uploader, key: str) -> job_pb2.Job:
        """EnqueueGeneration."""
        request = enqueue_pb2.EnqueueGenerationRequest()
        self.fill(request, key)
        places: list[tuple[Sequence[str], Any]] = [(self.product_images, request.product_images)]
        if self.moodboard_images:
            places.append((self.moodboard_images, request.moodboard.positive_images))
        if self.avoid_images:
            places.append((self.avoid_images, request.moodboard.negative_images))
        singles = [
            (self.model_image, request.model_image),
            (self.background_image, request.background_image),
        ]
        singles = [single for single in singles if single[0]]
        given = [one for images, _ in places for one in images] + [one for one, _ in singles]
        refs = iter(await uploader.refs(given))
        for images, repeated in places:
            repeated.extend(next(refs) for _ in images)
        for _, single in singles:
            single.CopyFrom(next(refs))
        answer = await shop.enqueue.unary(lambda stub: stub.EnqueueGeneration, request)
        job: job_pb2.Job = answer.job
        return job


@dataclass(frozen=True, kw_only=True)
class EditWish(Wish):
    """A change to one image."""

    base_image: str
    reference_image: str = ""

    async def enqueue(self, shop: Connection, uploader: Uploader, key: str) -> job_pb2.Job:
        """EnqueueEdit."""
        request = enqueue_pb2.EnqueueEditRequest()
        self.fill(request, key)
        given = [self.base_image, *([self.reference_image] if self.reference_image else [])]
        refs = await uploader.refs(given)
        request.base_image.CopyFrom(refs[0])
        if self.reference_image:
            request.reference_image.CopyFrom(refs[1])
        answer = await shop.enqueue.unary(lambda stub: stub.EnqueueEdit, request)
        job: job_pb2.Job = answer.job
        return job


@dataclass(frozen=True, slots=True)
class Made:
    """How a wish came out; `steps` are (what, seconds)."""

    job: job_pb2.Job
    savings: Savings
    steps: tuple[tuple[str, float], ...]

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(seconds for _, seconds in self.steps)


def make(
    wish: Wish,
    *,
    wait: bool,
    out: Path | None,
    data: Path | None,
    team: str | None,
    output: Output,
) -> ExitCode:
    """Carries a wish out and says how it went."""
    if wait:
        make_folder(out or OUT)  # told before the work, not after

    async def work() -> ExitCode:
        async with connect(data, team) as shop:
            if not wait:
                job = await _enqueue(shop, wish, output)
                output.say(f"job {job.id} is {progress.job_state(job).lower()}")
                output.note(f"Watch it: contentshop watch {job.id}{shop.flags}")
                output.result({"job": to_plain(job)})
                return ExitCode.OK
            made = await carry_out(shop, wish, out=out, output=output)
            return _say_made(made, output)

    return run(work())


async def carry_out(
    shop: Connection, wish: Wish, *, out: Path | None, output: Output, outlives_us: bool = True
) -> Made:
    """Uploads, enqueues, follows to the end and saves what was made.

    Args:
        shop: where to.
        wish: what to make.
        out: the folder for it; None for the job's own.
        output: where progress is shown.
        outlives_us: when we are interrupted the job goes on; else it is canceled.
    """
    times = [shop.clock.monotonic()]
    job = await _enqueue(shop, wish, output)
    times.append(shop.clock.monotonic())
    try:
        job = await follow_shown(shop, job, output)
    except asyncio.CancelledError:
        await _leave(shop, job, output, outlives_us=outlives_us)
        raise
    times.append(shop.clock.monotonic())
    savings = await save_job(shop, job, out or default_folder(job), output)
    times.append(shop.clock.monotonic())
    took = (later - earlier for earlier, later in pairwise(times))
    return Made(job, savings, tuple(zip(("upload", "generate", "save"), took, strict=True)))


async def _leave(shop: Connection, job: job_pb2.Job, output: Output, *, outlives_us: bool) -> None:
    if outlives_us:
        how = f"contentshop watch {job.id}{shop.flags}"
        output.note(f"job {job.id} goes on; come back to it: {how}", style="")
        return
    with suppress(ContentshopError, CliError):
        request = enqueue_pb2.CancelJobRequest(job_id=job.id)
        await shop.enqueue.unary(lambda stub: stub.CancelJob, request)
        output.note(f"job {job.id} is canceled", style="")


async def _enqueue(shop: Connection, wish: Wish, output: Output) -> job_pb2.Job:
    def uploaded(photo: Photo, file: assets_pb2.File) -> None:
        output.note(f"uploaded {photo.path} ({words.size(photo.size)}) as file {file.id}")

    key = wish.request_id or shop.ids.token()
    uploader = Uploader(shop, key, uploaded)
    if wish.request_id:  # the uploads of that key may be another job's already
        return await wish.enqueue(shop, uploader, key)
    async with uploader.undone_if_refused():
        return await wish.enqueue(shop, uploader, key)


async def follow_shown(
    shop: Connection, job: job_pb2.Job, output: Output, *, after: int = 0
) -> job_pb2.Job:
    """Follows a job we just heard of to its end, with its progress shown; the job at its end."""
    with progress.shown(output, job.id) as display:
        watch = follow(shop, job.id, after=after, notice=display.notice, known_to_run=True)
        async with aclosing(watch) as responses:
            async for response in responses:
                display.update(response)
                if response.HasField("job"):
                    job = response.job
    return job


def _say_made(made: Made, output: Output) -> ExitCode:
    show_saved(made.savings, output)
    code = say_ending(made.job, output, made.seconds)
    if made.savings.missing:
        code = ExitCode.FAILED
    output.result(
        {
            "job": to_plain(made.job),
            "files": made.savings.payload(),
            "folder": str(made.savings.folder),
            **made.savings.gaps(),
            "seconds": round(made.seconds, 3),
        }
    )
    return code


def say_ending(job: job_pb2.Job, output: Output, seconds: float | None = None) -> ExitCode:
    """One sentence on how a job ended, and the exit code for it."""
    state = progress.job_state(job)
    took = f" in {words.seconds(seconds)}" if seconds is not None else ""
    counts = words.images(job.images_done, job.number_of_variations)
    if state == "SUCCEEDED":
        output.note(f"job {job.id} succeeded{took}: {counts}", style="bold green")
        return ExitCode.OK
    why = f": {job.error.message} ({job.error.reason})" if job.HasField("error") else ""
    output.note(f"job {job.id} {state.lower()}{took} with {counts}{why}", style="bold red")
    return ExitCode.FAILED
