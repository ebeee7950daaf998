"""What `contentshop jobs`, `job` and `cancel` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from cli import progress, words
from cli.connection import Connection, connect
from cli.errors import ExitCode
from cli.output import Output
from cli.plain import enum_word, to_plain
from cli.running import run
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2

PAGE = 200


def jobs(
    states: Sequence[str], limit: int, *, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Lists jobs, newest first."""

    async def work() -> tuple[list[job_pb2.Job], bool]:
        async with connect(data, team) as shop:
            return await _read(shop, states, limit)

    found, more = run(work())
    if not found:
        output.note("no jobs")
    else:
        _table(found, output)
    if more:
        output.note(f"there are more; these are the newest {len(found)} (--limit)")
    output.result({"jobs": [to_plain(job) for job in found], "more": more})
    return ExitCode.OK


async def _read(
    shop: Connection, states: Sequence[str], limit: int
) -> tuple[list[job_pb2.Job], bool]:
    wanted = [job_pb2.JobState.Value(f"JOB_STATE_{state.upper()}") for state in states]
    found: list[job_pb2.Job] = []
    token = ""
    while True:
        request = enqueue_pb2.ListJobsRequest(
            page_size=min(PAGE, limit - len(found)), page_token=token, states=wanted
        )
        answer = await shop.enqueue.unary(lambda stub: stub.ListJobs, request)
        found += answer.jobs
        token = answer.next_page_token
        if not token or len(found) >= limit:
            return found, bool(token)


def _table(found: Sequence[job_pb2.Job], output: Output) -> None:
    from libs.common.clock import SystemClock  # noqa: PLC0415

    now = SystemClock().now()
    output.table(
        [
            ("job", "right"),
            ("state", "left"),
            ("images", "right"),
            ("zip", "left"),
            ("workflow", "left"),
            ("quality", "left"),
            ("enqueued", "right"),
            ("took", "right"),
            ("why", "left"),
        ],
        [
            (
                str(job.id),
                _state(progress.job_state(job)),
                f"{job.images_done}/{job.number_of_variations}",
                _state(_archive_state(job)),
                job.schema_key,
                enum_word(job_pb2.Quality.DESCRIPTOR, job.quality).lower(),
                words.ago(job.create_time, now),
                _took(job),
                job.error.reason,
            )
            for job in found
        ],
    )


def _state(word: str) -> Text:
    return Text(word.lower(), style=words.style_of(word))


def _archive_state(job: job_pb2.Job) -> str:
    word = enum_word(job_pb2.ArchiveState.DESCRIPTOR, job.archive.state)
    return "" if word == "NONE" else word


def _took(job: job_pb2.Job) -> str:
    if not job.HasField("finish_time"):
        return ""
    passed = words.moment(job.finish_time) - words.moment(job.create_time)
    return words.seconds(passed.total_seconds())


def job(job_id: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Shows one job, and why it is where it is."""

    async def work() -> tuple[job_pb2.Job, str]:
        async with connect(data, team) as shop:
            request = enqueue_pb2.GetJobRequest(job_id=job_id)
            answer = await shop.enqueue.unary(lambda stub: stub.GetJob, request)
            why = enqueue_pb2.ExplainJobRequest(job_id=job_id)
            explained = await shop.enqueue.unary(lambda stub: stub.ExplainJob, why)
            return answer.job, explained.sentence

    found, sentence = run(work())
    if not output.as_json:
        _show(found, output)
        output.say(sentence)
    output.result({"job": to_plain(found), "explanation": sentence})
    return ExitCode.OK


def _show(job: job_pb2.Job, output: Output) -> None:
    state = progress.job_state(job)
    output.say(Text(f"job {job.id}  ", style="bold").append(_state(state)))
    for name, value in _facts(job):
        if value:
            output.say(Text(f"  {name:<12}", style="dim").append(value, style="not dim"))
    output.table(
        [("image", "right"), ("state", "left"), ("file", "right"), ("", "left"), ("model", "left")],
        [
            (
                str(image.index),
                _state(progress.image_state(image)),
                str(image.file_id or ""),
                progress.image_facts(image),
                image.model,
            )
            for image in job.images
        ],
    )


def _facts(job: job_pb2.Job) -> list[tuple[str, str]]:
    inputs = [
        ("products", [*job.product_image_file_ids]),
        ("model", [job.model_image_file_id]),
        ("background", [job.background_image_file_id]),
        ("base", [job.base_image_file_id]),
        ("reference", [job.reference_image_file_id]),
        ("moodboard", [*job.moodboard_snapshot.positive_file_ids]),
        ("avoid", [*job.moodboard_snapshot.negative_file_ids]),
    ]
    files = ", ".join(
        f"{name} {' '.join(str(one) for one in ids)}" for name, ids in inputs if any(ids)
    )
    values = ", ".join(f"{key}: {value}" for key, value in sorted(job.input.items()) if value)
    error = f"{job.error.reason}: {job.error.message}" if job.HasField("error") else ""
    archive = _archive_state(job).lower()
    if job.archive.filename:
        archive += f"  {job.archive.filename}  {words.size(job.archive.size_bytes)}"
    return [
        ("workflow", f"{job.schema_key} on {job.lane}"),
        ("asked for", values),
        ("files", files),
        ("attempts", f"{job.attempts} of {job.max_attempts}"),
        ("enqueued", words.when(job.create_time)),
        ("started", words.when(job.start_time) if job.HasField("start_time") else ""),
        ("ended", words.when(job.finish_time) if job.HasField("finish_time") else ""),
        ("took", _took(job)),
        ("zip", archive),
        ("error", error),
        ("events", str(job.last_sequence)),
    ]


def cancel(job_id: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Cancels a job."""

    async def work() -> job_pb2.Job:
        async with connect(data, team) as shop:
            request = enqueue_pb2.CancelJobRequest(job_id=job_id)
            answer = await shop.enqueue.unary(lambda stub: stub.CancelJob, request)
            found: job_pb2.Job = answer.job
            return found

    found = run(work())
    output.say(
        f"job {found.id} is canceled; "
        f"{words.images(found.images_done, found.number_of_variations)} made before"
    )
    output.result({"job": to_plain(found)})
    return ExitCode.OK
