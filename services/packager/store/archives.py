"""Archives as teams see them: made, found, asked for again."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.packager import tables
from services.packager.domain import (
    Archive,
    ArchiveState,
    EndedJob,
    Fault,
    JobImage,
    WrittenZip,
    sources_of,
)

_archives = tables.archives


async def add(tx: Tx, job: EndedJob) -> bool:
    """A PENDING archive of the job, due at once; False when the job has one already."""
    row = await tx.execute(
        tx.insert(_archives)
        .values(
            team=job.team,
            job_id=job.job_id,
            filename=job.filename,
            images=[[image.index, image.file_id] for image in job.images],
            image_count=len(job.images),
            finish_time_ms=job.finish_time_ms,
            created_at=tx.now(),
            state=ArchiveState.PENDING,
            attempts=0,
            fence=0,
            try_at=tx.now(),
            report_failures=0,
        )
        .on_conflict_do_nothing(index_elements=["team", "job_id"])
        .returning(_archives.c.id)
    )
    return row.one_or_none() is not None


async def find(tx: Tx, team: str, archive_id: int) -> Archive | None:
    """A team's archive by its id."""
    return await _one(tx, _archives.c.team == team, _archives.c.id == archive_id)


async def find_by_job(tx: Tx, team: str, job_id: int) -> Archive | None:
    """A team's archive by its job."""
    return await _one(tx, _archives.c.team == team, _archives.c.job_id == job_id)


async def _one(tx: Tx, *conditions: sa.ColumnElement[bool]) -> Archive | None:
    row = (await tx.execute(sa.select(_archives).where(*conditions))).one_or_none()
    return archive_of(row) if row else None


async def try_again(tx: Tx, team: str, archive_id: int) -> Archive | None:
    """FAILED → PENDING with all its attempts, due at once; None when it may not move there."""
    row = (
        await tx.execute(
            sa.update(_archives)
            .where(
                _archives.c.team == team,
                _archives.c.id == archive_id,
                _archives.c.state.in_(sources_of(ArchiveState.PENDING)),
            )
            .values(
                state=ArchiveState.PENDING,
                attempts=0,
                fence=_archives.c.fence + 1,
                try_at=tx.now(),
                lease_until=None,
                error_reason=None,
                error_message=None,
                finished_at=None,
                report_at=None,
                report_failures=0,
            )
            .returning(_archives)
        )
    ).one_or_none()
    return archive_of(row) if row else None


async def ask_report(tx: Tx, team: str, job_id: int) -> bool:
    """Makes the report of a READY or FAILED archive due; False when it is still PENDING."""
    rows = await tx.execute(
        sa.update(_archives)
        .where(
            _archives.c.team == team,
            _archives.c.job_id == job_id,
            _archives.c.state != ArchiveState.PENDING,
        )
        .values(report_at=tx.now(), report_failures=0)
        .returning(_archives.c.id)
    )
    return rows.one_or_none() is not None


def archive_of(row: sa.Row[Any]) -> Archive:
    """An archive from its row."""
    written = None
    if row.written_key is not None:
        written = WrittenZip(
            row.written_key, row.written_bytes, row.written_sha256, row.written_crc32
        )
    return Archive(
        id=row.id,
        team=row.team,
        job_id=row.job_id,
        state=ArchiveState(row.state),
        filename=row.filename,
        images=tuple(JobImage(index, file_id) for index, file_id in row.images),
        file_id=row.file_id or 0,
        size_bytes=row.size_bytes or 0,
        fault=Fault(row.error_reason, row.error_message or "") if row.error_reason else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        fence=row.fence,
        written=written,
        report_failures=row.report_failures,
    )
