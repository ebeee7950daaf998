"""Telling enqueue how archives came out: at least once, and until it is heard."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from libs.common.errors import (
    ContentshopError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)
from services.packager.domain import Archive
from services.packager.store import reports
from services.packager.usecases.deps import Deps

log = structlog.get_logger()

BATCH = 16  # all in flight together


class ArchiveRecords(Protocol):
    """enqueue, as far as reporting needs it."""

    async def record(self, archive: Archive) -> None:
        """Records a READY or FAILED archive on its job; idempotent."""
        ...


async def report_archives(deps: Deps, records: ArchiveRecords) -> bool:
    """Makes the reports that are due; True when there may be more."""
    async with deps.db.duty() as tx:
        due = await reports.take(tx, BATCH, deps.limits.report_seconds)
    async with asyncio.TaskGroup() as group:
        for archive in due:
            group.create_task(_report(deps, records, archive))
    return len(due) == BATCH


async def _report(deps: Deps, records: ArchiveRecords, archive: Archive) -> None:
    try:
        await records.record(archive)
    except (NotFoundError, InvalidArgumentError, FailedPreconditionError) as error:
        # A canceled job, for instance, may have an archive but keeps no word of it.
        log.info("report.not_wanted", archive_id=archive.id, reason=error.reason)
    except ContentshopError as error:
        wait = deps.limits.report.wait(archive.report_failures, deps.ids)
        log.warning("report.failed", archive_id=archive.id, reason=error.reason, wait=wait)
        async with deps.db.duty() as tx:
            await reports.later(tx, archive, wait)
        return
    async with deps.db.duty() as tx:
        await reports.arrived(tx, archive)
