"""What `contentshop download` does."""

from __future__ import annotations

from pathlib import Path

from cli import progress
from cli.connection import connect
from cli.errors import CliError, ExitCode
from cli.files import make_folder
from cli.making import follow_shown
from cli.output import Output
from cli.plain import to_plain
from cli.running import run
from cli.saving import default_folder, save_job, show_saved
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2

_LIVE = (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING)


def download(
    job_id: int,
    *,
    wait: bool,
    out: Path | None,
    data: Path | None,
    team: str | None,
    output: Output,
) -> ExitCode:
    """Saves what a job made.

    Raises:
        CliError: it made nothing (exit 1 when it has ended, else 6).
    """

    async def work() -> ExitCode:
        if out is not None:
            make_folder(out)  # told before the wait, not after
        async with connect(data, team) as shop:
            request = enqueue_pb2.GetJobRequest(job_id=job_id)
            answer = await shop.enqueue.unary(lambda stub: stub.GetJob, request)
            job: job_pb2.Job = answer.job
            if wait and (job.state in _LIVE or job.archive.state == job_pb2.ARCHIVE_STATE_PENDING):
                job = await follow_shown(shop, job, output, after=job.last_sequence)
            if not job.images_done:
                raise _nothing(job)
            savings = await save_job(shop, job, out or default_folder(job), output)
        show_saved(savings, output)
        output.result(
            {
                "job": to_plain(job),
                "files": savings.payload(),
                "folder": str(savings.folder),
                **savings.gaps(),
            }
        )
        return ExitCode.OK if savings.whole else ExitCode.FAILED

    return run(work())


def _nothing(job: job_pb2.Job) -> CliError:
    state = progress.job_state(job).lower()
    if job.state in _LIVE:
        return CliError(
            f"job {job.id} is {state} and has made no image yet",
            ExitCode.REFUSED,
            hint=f"Wait for it: contentshop watch {job.id}",
            reason="NO_IMAGES_YET",
        )
    return CliError(f"job {job.id} {state} and made no image", ExitCode.FAILED, reason="NO_IMAGES")
