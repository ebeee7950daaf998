"""Saves what a job made: its images, and its zip where there is one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli import words
from cli.connection import Connection
from cli.errors import CliError, ExitCode
from cli.files import SavedFile, save_images, save_zip
from cli.output import Output
from contentshop.enqueue.v1 import job_pb2
from contentshop.packager.v1 import packager_pb2
from libs.common.errors import ContentshopError

ZIP_PATIENCE_SECONDS = 60.0
ZIP_POLL_SECONDS = 0.5
OUT = Path("out")


@dataclass(frozen=True, slots=True)
class Savings:
    """What was saved where.

    Attributes:
        zip_error: why there is no zip where there should be one.
        missing: the images that could not be had, by index, with the reason.
    """

    folder: Path
    files: list[SavedFile] = field(default_factory=list)
    zip_error: str = ""
    missing: dict[int, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether everything that there should be was saved."""
        return not self.zip_error and not self.missing

    def payload(self) -> list[dict[str, Any]]:
        """For --json."""
        return [file.payload() for file in self.files]

    def gaps(self) -> dict[str, Any]:
        """What could not be had, for --json."""
        missing = {str(index): reason for index, reason in self.missing.items()}
        return {"missing": missing, "zip_error": self.zip_error}


def default_folder(job: job_pb2.Job) -> Path:
    """Where images go when nothing is said."""
    return OUT / f"job-{job.id}"


async def save_job(shop: Connection, job: job_pb2.Job, folder: Path, output: Output) -> Savings:
    """Saves all DONE images, and the zip where the job has or is due one.

    A zip that cannot be had is reported and costs nobody the images.
    """
    if not job.images_done:
        return Savings(folder)
    saved, missing = await save_images(shop, job, folder)
    for index, reason in sorted(missing.items()):
        output.note(f"image {index} cannot be had: {reason}", style="yellow")
    if job.archive.state <= job_pb2.ARCHIVE_STATE_NONE:
        return Savings(folder, saved, missing=missing)
    try:
        name = job.archive.filename
        if job.archive.state != job_pb2.ARCHIVE_STATE_READY:
            output.note("the zip is not there yet; asking for it")
            request = packager_pb2.CreateArchiveRequest(job_id=job.id)
            name = (await have_zip_built(shop, request)).filename
        wanted = packager_pb2.DownloadArchiveRequest(job_id=job.id)
        saved.append(await save_zip(shop, wanted, name, folder))
    except (ContentshopError, CliError) as error:
        output.note(f"no zip: {error.message} ({error.reason})", style="yellow")
        return Savings(folder, saved, error.reason, missing)
    return Savings(folder, saved, missing=missing)


async def have_zip_built(
    shop: Connection, request: packager_pb2.CreateArchiveRequest
) -> packager_pb2.Archive:
    """The READY zip of a job, a batch or a folder; CliError when it cannot be built in time."""
    request.request_id = shop.ids.token()
    answer = await shop.packager.unary(lambda stub: stub.CreateArchive, request)
    deadline = shop.clock.monotonic() + ZIP_PATIENCE_SECONDS
    while answer.archive.state == packager_pb2.ARCHIVE_STATE_PENDING:
        if shop.clock.monotonic() > deadline:
            raise CliError("the zip is taking long", ExitCode.UNAVAILABLE, reason="ZIP_PENDING")
        await asyncio.sleep(ZIP_POLL_SECONDS)
        answer = await shop.packager.unary(
            lambda stub: stub.GetArchive,
            packager_pb2.GetArchiveRequest(archive_id=answer.archive.id),
        )
    if answer.archive.state != packager_pb2.ARCHIVE_STATE_READY:
        raise CliError(
            answer.archive.error_message or "the zip could not be built",
            ExitCode.FAILED,
            reason=answer.archive.error_reason or "ARCHIVE_FAILED",
        )
    archive: packager_pb2.Archive = answer.archive
    return archive


def show_saved(savings: Savings, output: Output) -> None:
    """A table of what was saved."""
    if not savings.files:
        return
    output.table(
        [("file", "left"), ("pixels", "right"), ("size", "right")],
        [
            (
                file.path,
                f"{file.width}×{file.height}" if file.width else "",  # noqa: RUF001 - times
                words.size(file.size_bytes),
            )
            for file in savings.files
        ],
    )
