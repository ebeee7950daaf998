"""What `contentshop batch create`, `list`, `show`, `cancel`, `retry` and `download` do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from cli import progress, words
from cli.batch_file import BatchFile, read_batch_file
from cli.batch_watching import batch_state, follow_shown, say_ending
from cli.connection import Connection, connect
from cli.errors import CliError, ExitCode
from cli.files import Photo, Uploader, make_folder, save_zip
from cli.output import Output
from cli.plain import to_plain
from cli.running import run
from cli.saving import OUT, have_zip_built
from contentshop.assets.v1 import assets_pb2
from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, job_pb2
from contentshop.packager.v1 import packager_pb2
from libs.common.clock import SystemClock

PAGE = 200
BATCH_CALL_SECONDS = 60.0  # a hundred variants are resolved and stored


def create(
    file: Path, *, request_id: str, wait: bool, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Uploads what is local, enqueues the batch, and follows it where that is wanted."""
    read = read_batch_file(file)

    async def work() -> ExitCode:
        async with connect(data, team) as shop:
            batch = await _enqueue(shop, read, request_id, output)
            if not wait:
                if not output.as_json:
                    output.say(str(batch.id))
                output.note(f"Watch it: contentshop batch watch {batch.id}{shop.flags}")
                output.result({"batch": to_plain(batch)})
                return ExitCode.OK
            try:
                batch = await follow_shown(shop, batch.id, output, known_to_run=True)
            except asyncio.CancelledError:
                how = f"contentshop batch watch {batch.id}{shop.flags}"
                output.note(f"batch {batch.id} goes on; come back to it: {how}", style="")
                raise
        output.result({"batch": to_plain(batch)})
        return say_ending(batch, output)

    return run(work())


async def _enqueue(
    shop: Connection, read: BatchFile, request_id: str, output: Output
) -> batch_pb2.Batch:
    key = request_id or shop.ids.token()
    read.request.request_id = key
    uploader = _uploader(shop, key, output)
    if request_id:  # the uploads of that key may be another batch's already
        await _fill_in(read, uploader)
        answer = await _call(shop, "EnqueueBatch", read.request)
    else:
        async with uploader.undone_if_refused():
            await _fill_in(read, uploader)
            answer = await _call(shop, "EnqueueBatch", read.request)
    batch: batch_pb2.Batch = answer.batch
    return batch


def _uploader(shop: Connection, key: str, output: Output) -> Uploader:
    def uploaded(photo: Photo, stored: assets_pb2.File) -> None:
        output.note(f"uploaded {photo.path} ({words.size(photo.size)}) as file {stored.id}")

    return Uploader(shop, key, uploaded)


async def _fill_in(read: BatchFile, uploader: Uploader) -> None:
    refs = await uploader.refs([given for given, _ in read.images])
    for (_, place), ref in zip(read.images, refs, strict=True):
        place.CopyFrom(ref)


async def _call(shop: Connection, method: str, request: Any) -> Any:
    return await shop.enqueue.unary(
        lambda stub: getattr(stub, method), request, timeout_seconds=BATCH_CALL_SECONDS
    )


def estimate(file: Path, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Says what a batch would take; what was uploaded for the check is deleted again.

    The exit code is REFUSED where the credits would not do.
    """
    read = read_batch_file(file)

    async def work() -> enqueue_pb2.EstimateBatchResponse:
        async with connect(data, team) as shop:
            uploader = _uploader(shop, shop.ids.token(), output)
            try:
                await _fill_in(read, uploader)
                request = enqueue_pb2.EstimateBatchRequest(
                    name=read.request.name,
                    variants=read.request.variants,
                    settings=read.request.settings,
                )
                answer: enqueue_pb2.EstimateBatchResponse = await _call(
                    shop, "EstimateBatch", request
                )
                return answer
            finally:
                await uploader.undo()

    found = run(work())
    output.say(f"{found.jobs} jobs, {words.images(found.images, found.images)}")
    if found.required_credits or not found.enough_credits:
        have = f"the team has {found.available_credits}"
        output.say(f"{found.required_credits} credits; {have}")
    if found.estimated_seconds:
        output.say(f"about {words.seconds(found.estimated_seconds)}")
    if not found.enough_credits:
        output.note("that is too few credits", style="bold red")
    output.result({"estimate": to_plain(found)})
    return ExitCode.OK if found.enough_credits else ExitCode.REFUSED


def list_all(limit: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Lists batches, newest first."""

    async def work() -> tuple[list[batch_pb2.Batch], bool]:
        found: list[batch_pb2.Batch] = []
        token = ""
        async with connect(data, team) as shop:
            while True:
                request = enqueue_pb2.ListBatchesRequest(
                    page_size=min(PAGE, limit - len(found)), page_token=token
                )
                answer = await shop.enqueue.unary(lambda stub: stub.ListBatches, request)
                found += answer.batches
                token = answer.next_page_token
                if not token or len(found) >= limit:
                    return found, bool(token)

    found, more = run(work())
    if not found:
        output.note("no batches")
    else:
        _table(found, output)
    if more:
        output.note(f"there are more; these are the newest {len(found)} (--limit)")
    output.result({"batches": [to_plain(batch) for batch in found], "more": more})
    return ExitCode.OK


def _table(found: Sequence[batch_pb2.Batch], output: Output) -> None:
    now = SystemClock().now()
    headings = ("batch", "state", "jobs", "images", "failed", "enqueued", "took", "name")
    output.table(
        [(h, "left" if h in ("state", "name") else "right") for h in headings],
        [
            (
                str(batch.id),
                _state(batch_state(batch)),
                f"{batch.jobs.succeeded}/{batch.jobs.total}",
                f"{batch.images.done}/{batch.images.total}",
                str(batch.jobs.failed or ""),
                words.ago(batch.create_time, now),
                _took(batch),
                batch.name,
            )
            for batch in found
        ],
    )


def _state(word: str) -> Text:
    return Text(word.lower(), style=words.style_of(word))


def _took(batch: batch_pb2.Batch) -> str:
    if not batch.HasField("finish_time"):
        return ""
    passed = words.moment(batch.finish_time) - words.moment(batch.create_time)
    return words.seconds(passed.total_seconds())


def show(batch_id: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Shows one batch and the jobs that stand for its variants."""

    async def work() -> tuple[batch_pb2.Batch, list[job_pb2.Job]]:
        async with connect(data, team) as shop:
            return await _get(shop, batch_id), await jobs_of(shop, batch_id)

    batch, jobs = run(work())
    if not output.as_json:
        _table([batch], output)
        output.say("")
        _jobs_table(batch, jobs, output)
    output.result({"batch": to_plain(batch), "jobs": [to_plain(job) for job in jobs]})
    return ExitCode.OK


async def _get(shop: Connection, batch_id: int) -> batch_pb2.Batch:
    request = enqueue_pb2.GetBatchRequest(batch_id=batch_id)
    batch: batch_pb2.Batch = (await shop.enqueue.unary(lambda stub: stub.GetBatch, request)).batch
    return batch


async def jobs_of(shop: Connection, batch_id: int) -> list[job_pb2.Job]:
    """All jobs of a batch, retried ones included, newest first."""
    found: list[job_pb2.Job] = []
    token = ""
    while True:
        request = enqueue_pb2.ListJobsRequest(page_size=PAGE, page_token=token, batch_id=batch_id)
        answer = await shop.enqueue.unary(lambda stub: stub.ListJobs, request)
        found += answer.jobs
        token = answer.next_page_token
        if not token:
            return found


def _jobs_table(batch: batch_pb2.Batch, jobs: Sequence[job_pb2.Job], output: Output) -> None:
    known = {job.id: job for job in jobs}
    output.table(
        [
            ("variant", "right"),
            ("", "left"),
            ("job", "right"),
            ("state", "left"),
            ("images", "right"),
            ("why", "left"),
        ],
        [
            (
                str(job.variant_index),
                job.variant,
                str(job.id),
                _state(progress.job_state(job)),
                f"{job.images_done}/{job.number_of_variations}",
                job.error.reason,
            )
            for job_id in batch.job_ids
            if (job := known.get(job_id)) is not None
        ],
    )


def cancel(batch_id: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Cancels a batch."""

    async def work() -> batch_pb2.Batch:
        async with connect(data, team) as shop:
            request = enqueue_pb2.CancelBatchRequest(batch_id=batch_id)
            batch: batch_pb2.Batch = (await _call(shop, "CancelBatch", request)).batch
            return batch

    batch = run(work())
    made = words.images(batch.images.done, batch.images.total)
    output.say(f"batch {batch.id}: {batch.jobs.canceled} jobs are canceled; {made} made before")
    output.result({"batch": to_plain(batch)})
    return ExitCode.OK


def retry(
    batch_id: int,
    *,
    only_missing: bool,
    request_id: str,
    data: Path | None,
    team: str | None,
    output: Output,
) -> ExitCode:
    """Runs the failed jobs again."""

    async def work() -> enqueue_pb2.RetryBatchResponse:
        async with connect(data, team) as shop:
            request = enqueue_pb2.RetryBatchRequest(
                batch_id=batch_id,
                only_missing=only_missing,
                request_id=request_id or shop.ids.token(),
            )
            answer: enqueue_pb2.RetryBatchResponse = await _call(shop, "RetryBatch", request)
            output.note(f"Watch it: contentshop batch watch {batch_id}{shop.flags}")
            return answer

    answer = run(work())
    output.say(f"batch {batch_id}: {len(answer.job_ids)} jobs run again")
    output.result({"batch": to_plain(answer.batch), "job_ids": list(answer.job_ids)})
    return ExitCode.OK


def download(
    batch_id: int, *, out: Path | None, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Has the batch's zip built where there is none, and saves it.

    Raises:
        CliError: it has not ended, or it made nothing.
    """
    folder = out or OUT / f"batch-{batch_id}"
    make_folder(folder)  # told before the work, not after

    async def work() -> ExitCode:
        async with connect(data, team) as shop:
            batch = await _get(shop, batch_id)
            if batch.state == batch_pb2.BATCH_STATE_ACTIVE:
                raise CliError(
                    f"batch {batch_id} has not ended yet",
                    ExitCode.REFUSED,
                    hint=f"Wait for it: contentshop batch watch {batch_id}{shop.flags}",
                    reason="BATCH_ACTIVE",
                )
            wanted = packager_pb2.CreateArchiveRequest(batch_id=batch_id)
            archive = await have_zip_built(shop, wanted)
            request = packager_pb2.DownloadArchiveRequest(archive_id=archive.id)
            saved = await save_zip(shop, request, archive.filename, folder)
        output.say(f"{saved.path}  {words.size(saved.size_bytes)}")
        output.result(
            {"batch": to_plain(batch), "archive": to_plain(archive), "file": saved.payload()}
        )
        return ExitCode.OK

    return run(work())
