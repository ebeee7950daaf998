"""Archives as teams see them: made, found, asked for again, hidden."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.packager import tables
from services.packager.domain import (
    Archive,
    ArchiveImage,
    ArchiveState,
    Contents,
    Fault,
    Section,
    Source,
    SourceKind,
    WantedArchive,
    WrittenZip,
    sources_of,
)

_archives = tables.archives
_BULKY = {"images", "variants"}  # thousands of numbers that only a build reads
FACTS = tuple(column for column in _archives.c if column.name not in _BULKY)
_SOURCE_COLUMNS = {
    SourceKind.JOB: _archives.c.job_id,
    SourceKind.BATCH: _archives.c.batch_id,
    SourceKind.FOLDER: _archives.c.folder_id,
}

# Of an archive that is built again.
_ANEW: dict[str, Any] = {
    "file_id": None,
    "size_bytes": None,
    "attempts": 0,
    "fence": _archives.c.fence + 1,
    "lease_until": None,
    "images_written": 0,
    "error_reason": None,
    "error_message": None,
    "finished_at": None,
    "report_at": None,
    "report_failures": 0,
}


async def add(tx: Tx, wanted: WantedArchive) -> bool:
    """A PENDING archive, due at once; False when there is one already."""
    row = await tx.execute(
        tx.insert(_archives)
        .values(_new(tx, wanted))
        .on_conflict_do_nothing()
        .returning(_archives.c.id)
    )
    return row.one_or_none() is not None


async def find_same(tx: Tx, wanted: WantedArchive) -> Archive | None:
    """The archive that is exactly what is wanted."""
    return await _one(tx, *_is_same(wanted))


async def ask(tx: Tx, wanted: WantedArchive) -> Archive:
    """The archive that is wanted, the newest of its source from now on: new and due, or known."""
    row = await tx.execute(
        tx.insert(_archives)
        .values(_new(tx, wanted))
        .on_conflict_do_update(
            index_elements=_same_columns(wanted.source.kind), set_={"asked_at": tx.now()}
        )
        .returning(*FACTS)
    )
    return archive_of(row.one())


async def find(tx: Tx, team: str, archive_id: int) -> Archive | None:
    """A team's archive by its id."""
    return await _one(tx, _archives.c.team == team, _archives.c.id == archive_id)


async def find_newest(tx: Tx, team: str, source: Source) -> Archive | None:
    """A team's archive by what it is of; of several the one asked for last."""
    row = await tx.execute(
        sa.select(*FACTS)
        .where(_archives.c.team == team, _is_of(source))
        .order_by(sa.func.coalesce(_archives.c.asked_at, _archives.c.created_at).desc())
        .order_by(_archives.c.id.desc())
        .limit(1)
    )
    found = row.one_or_none()
    return archive_of(found) if found else None


async def find_many(tx: Tx, archive_ids: Collection[int]) -> list[Archive]:
    """Archives by id, of any team; those that are there."""
    rows = await tx.execute(sa.select(*FACTS).where(_archives.c.id.in_(archive_ids)))
    return [archive_of(row) for row in rows]


async def _one(tx: Tx, *conditions: sa.ColumnElement[bool]) -> Archive | None:
    row = (await tx.execute(sa.select(*FACTS).where(*conditions))).one_or_none()
    return archive_of(row) if row else None


async def begin_again(tx: Tx, archive: Archive) -> Archive | None:
    """FAILED or READY → PENDING with all its attempts, due at once; None when it moved on."""
    row = (
        await tx.execute(
            sa.update(_archives)
            .where(
                _archives.c.team == archive.team,
                _archives.c.id == archive.id,
                _archives.c.fence == archive.fence,
                _archives.c.state == archive.state,
                _archives.c.state.in_(sources_of(ArchiveState.PENDING)),
            )
            .values(_ANEW | {"state": ArchiveState.PENDING, "try_at": tx.now()})
            .returning(*FACTS)
        )
    ).one_or_none()
    return archive_of(row) if row else None


async def begin_with(tx: Tx, wanted: WantedArchive) -> bool:
    """Begins a job's archive again where it was of other images; False where it was of these.

    A job has the same images for ever, unless enqueue was restored and it ended anew.
    """
    new = _new(tx, wanted)
    same = {name: new[name] for name in ("images", "image_count", "filename", "finish_time_ms")}
    row = await tx.execute(
        sa.select(_archives.c.id, _archives.c.images)
        .where(*_is_same(wanted))
        .with_for_update(key_share=True)
    )
    known = row.one_or_none()
    if known is None or known.images == new["images"]:
        return False
    await tx.execute(
        sa.update(_archives)
        .where(_archives.c.id == known.id)
        .values(
            _ANEW | same | {"state": ArchiveState.PENDING, "try_at": tx.now(), "written_key": None}
        )
    )
    return True


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


async def find_failure_told(tx: Tx, team: str, job_id: int) -> Archive | None:
    """The FAILED archive of a job of which enqueue has heard."""
    return await _one(
        tx,
        _archives.c.team == team,
        _archives.c.job_id == job_id,
        _archives.c.state == ArchiveState.FAILED,
        _archives.c.report_at.is_(None),
    )


async def any_of(tx: Tx, team: str, sources: Collection[Source]) -> bool:
    """Whether there is an archive of one of these."""
    condition = sa.or_(*(_is_of(source) for source in sources))
    found = sa.select(_archives.c.id).where(_archives.c.team == team, condition).limit(1)
    return await tx.scalar(found) is not None


async def hide(tx: Tx, team: str, sources: Collection[Source]) -> None:
    """All archives of these are not handed out from now on."""
    await tx.execute(
        sa.update(_archives)
        .where(_archives.c.team == team, sa.or_(*(_is_of(source) for source in sources)))
        .values(hidden_at=tx.now())
    )


async def show(tx: Tx, archive: Archive) -> bool:
    """Hands the archive out again, unless it was hidden anew since it was read."""
    rows = await tx.execute(
        sa.update(_archives)
        .where(
            _archives.c.team == archive.team,
            _archives.c.id == archive.id,
            _archives.c.hidden_at == archive.hidden_at,
        )
        .values(hidden_at=None)
        .returning(_archives.c.id)
    )
    return rows.one_or_none() is not None


def _new(tx: Tx, wanted: WantedArchive) -> dict[str, Any]:
    contents, source = wanted.contents, wanted.source
    images = contents.images
    variants = [[part.variant_index, part.variant, len(part.images)] for part in contents.sections]
    return {
        "team": wanted.team,
        _SOURCE_COLUMNS[source.kind].name: source.id,
        "content_key": wanted.key or None,
        "source_name": contents.name or None,
        "filename": wanted.filename,
        "images": [[image.index, image.file_id] for image in images],
        "variants": variants if source.kind is SourceKind.BATCH else None,
        "image_count": len(images),
        "finish_time_ms": wanted.stamp_ms,
        "created_at": tx.now(),
        "state": ArchiveState.PENDING,
        "attempts": 0,
        "fence": 0,
        "try_at": tx.now(),
        "report_failures": 0,
    }


def _same_columns(kind: SourceKind) -> list[str]:
    alone = kind is SourceKind.JOB
    return ["team", _SOURCE_COLUMNS[kind].name, *([] if alone else ["content_key"])]


def _is_same(wanted: WantedArchive) -> tuple[sa.ColumnElement[bool], ...]:
    same = (_archives.c.team == wanted.team, _is_of(wanted.source))
    return (*same, _archives.c.content_key == wanted.key) if wanted.key else same


def _is_of(source: Source) -> sa.ColumnElement[bool]:
    return _SOURCE_COLUMNS[source.kind] == source.id


def contents_of(row: sa.Row[Any]) -> Contents:
    """What goes in, from a row with the bulky columns."""
    images = tuple(ArchiveImage(index, file_id) for index, file_id in row.images)
    name = row.source_name or ""
    if row.variants is None:
        return Contents((Section(images),), name)
    sections = []
    start = 0
    for variant_index, variant, count in row.variants:
        sections.append(Section(images[start : start + count], variant_index, variant))
        start += count
    return Contents(tuple(sections), name)


def _source_of(row: sa.Row[Any]) -> Source:
    ids = ((kind, getattr(row, column.name)) for kind, column in _SOURCE_COLUMNS.items())
    return next(Source(kind, source_id) for kind, source_id in ids if source_id is not None)


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
        source=_source_of(row),
        state=ArchiveState(row.state),
        filename=row.filename,
        image_count=row.image_count,
        images_written=row.images_written,
        file_id=row.file_id or 0,
        size_bytes=row.size_bytes or 0,
        fault=Fault(row.error_reason, row.error_message or "") if row.error_reason else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        fence=row.fence,
        written=written,
        report_failures=row.report_failures,
        hidden_at=row.hidden_at,
    )
