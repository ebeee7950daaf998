"""Files: rows come after their blobs, and go after them.

What a team stores is counted here, with every row that comes or is deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.assets import tables
from services.assets.domain import (
    IMAGE_KINDS,
    Content,
    File,
    FileKind,
    Input,
    Making,
    NewFile,
    ReviewState,
    Slot,
)
from services.assets.store import storage

_files = tables.files

_LIVE = _files.c.deleted_at.is_(None)
# Where a review is wanted, generated images are shown when it has approved them.
APPROVED = sa.or_(
    _files.c.kind != FileKind.GENERATED, _files.c.review_state == ReviewState.APPROVED
)
VISIBLE = sa.and_(
    _LIVE,
    sa.or_(_files.c.kind != FileKind.GENERATED, _files.c.recorded_at.is_not(None)),
)
"""What lists show: not deleted, and recorded where a job made it."""


@dataclass(frozen=True, slots=True)
class FileFilter:
    """Which files of a team: of this kind (None: all), of this job (0: all)."""

    kind: FileKind | None
    job_id: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """What enqueue says of a job's outputs at its end."""

    file_ids: Collection[int]
    source_task_id: str
    variant: str
    batch_id: int


@dataclass(frozen=True, slots=True)
class Removal:
    """A deleted file whose blob is to go."""

    file_id: int
    blob_key: str


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A file, and the blob it should have."""

    file_id: int
    team: str
    blob_key: str
    size_bytes: int


async def page_of_blobs(tx: Tx, after_id: int, limit: int) -> list[StoredBlob]:
    """The next files of all teams, by id, that are not deleted."""
    columns = (_files.c.id, _files.c.team, _files.c.blob_key, _files.c.size_bytes)
    query = sa.select(*columns).where(_files.c.id > after_id, _LIVE).order_by(_files.c.id)
    rows = await tx.execute(query.limit(limit))
    return [StoredBlob(row.id, row.team, row.blob_key, row.size_bytes) for row in rows]


async def add(tx: Tx, new: NewFile) -> File | None:
    """The stored file; None when its slot or its blob has a file already."""
    content, slot, making = new.content, new.slot, new.making
    rows = await tx.execute(
        tx.insert(_files)
        .values(
            team=new.team,
            kind=new.kind,
            filename=new.filename,
            blob_key=new.blob_key,
            content_type=content.content_type,
            size_bytes=content.size_bytes,
            width=content.width,
            height=content.height,
            sha256=content.sha256,
            crc32=content.crc32,
            created_at=tx.now(),
            job_id=slot.job_id,
            image_index=slot.image_index,
            attempt=slot.attempt,
            model=slot.model,
            preview=slot.preview,
            source_task_id="",
            batch_id=new.batch_id,
            inputs=[[one.role, one.file_id, one.sha256] for one in making.inputs] or None,
            prompt_tokens=making.prompt_tokens,
            output_tokens=making.output_tokens,
            total_tokens=making.total_tokens,
            cost_micros=making.cost_micros,
        )
        .on_conflict_do_nothing()
        .returning(_files)
    )
    file = _file_or_none(rows.one_or_none())
    if file is not None:
        await storage.grow(tx, new.team, content.size_bytes)
    return file


async def find(tx: Tx, team: str, file_id: int) -> File | None:
    """A file of the team that is not deleted."""
    rows = await tx.execute(_select(team).where(_files.c.id == file_id))
    return _file_or_none(rows.one_or_none())


async def find_slot(tx: Tx, team: str, job_id: int, image_index: int) -> File | None:
    """The generated file of a job's slot."""
    rows = await tx.execute(
        _select(team).where(
            _files.c.kind == FileKind.GENERATED,
            _files.c.job_id == job_id,
            _files.c.image_index == image_index,
        )
    )
    return _file_or_none(rows.one_or_none())


async def find_blob(tx: Tx, team: str, blob_key: str) -> File | None:
    """The file of a blob."""
    rows = await tx.execute(_select(team).where(_files.c.blob_key == blob_key))
    return _file_or_none(rows.one_or_none())


async def was_stored(tx: Tx, team: str, blob_key: str) -> bool:
    """Whether a blob has a file, or had one that is deleted and not yet forgotten."""
    named = sa.exists().where(_files.c.team == team, _files.c.blob_key == blob_key)
    return bool(await tx.scalar(sa.select(named)))


async def find_images(
    tx: Tx, team: str, file_ids: Collection[int], *, hold: bool
) -> dict[int, File]:
    """The team's images among these ids; see `find_images_of`."""
    return (await find_images_of(tx, {team: file_ids}, hold=hold))[team]


async def find_images_of(
    tx: Tx, wanted: Mapping[str, Collection[int]], *, hold: bool
) -> dict[str, dict[int, File]]:
    """The images of each team among the ids wanted for it, all in one statement.

    Args:
        tx: where.
        wanted: team → any ids.
        hold: keeps them from being deleted until the transaction ends.
    """
    found: dict[str, dict[int, File]] = {team: {} for team in wanted}
    every = {file_id for file_ids in wanted.values() for file_id in file_ids}
    if not every:
        return found
    query = (
        sa.select(_files)
        .where(
            _files.c.team.in_(list(wanted)),
            _files.c.id.in_(every),
            _files.c.kind.in_(IMAGE_KINDS),
            _LIVE,
        )
        .order_by(_files.c.id)
    )
    for row in await tx.execute(query.with_for_update(read=True) if hold else query):
        if row.id in wanted[row.team]:
            found[row.team][row.id] = file_of(row)
    return found


async def lock(tx: Tx, team: str, file_id: int) -> File | None:
    """A file of the team, and nobody may pin it until the transaction ends."""
    rows = await tx.execute(
        _select(team).where(_files.c.id == file_id).with_for_update(key_share=True)
    )
    return _file_or_none(rows.one_or_none())


async def page(
    tx: Tx, team: str, which: FileFilter, *, before_id: int | None, limit: int
) -> list[File]:
    """The team's visible files, newest first, older than `before_id`."""
    query = sa.select(_files).where(_files.c.team == team, VISIBLE)
    if which.kind is not None:
        query = query.where(_files.c.kind == which.kind)
    if which.job_id:
        query = query.where(_files.c.job_id == which.job_id)
    if before_id is not None:
        query = query.where(_files.c.id < before_id)
    rows = await tx.execute(query.order_by(_files.c.id.desc()).limit(limit))
    return [file_of(row) for row in rows]


async def delete(tx: Tx, team: str, file_id: int, removal_seconds: float) -> None:
    """Sets a file's tombstone; its blob may go after so many seconds."""
    await delete_many(tx, sa.and_(_files.c.team == team, _files.c.id == file_id), removal_seconds)


async def record(
    tx: Tx, team: str, job_id: int, recorded: Recorded, state: ReviewState | None
) -> list[int]:
    """Makes a job's outputs visible; which of them were not before. The others stay as they are."""
    if not recorded.file_ids:
        return []
    rows = await tx.execute(
        sa.update(_files)
        .where(_unrecorded(team, job_id), _files.c.id.in_(recorded.file_ids))
        .values(
            recorded_at=tx.now(),
            source_task_id=recorded.source_task_id,
            variant=recorded.variant,
            batch_id=recorded.batch_id,
            review_state=state,
        )
        .returning(_files.c.id)
    )
    return list(rows.scalars())


async def review(tx: Tx, team: str, job_id: int, state: ReviewState | None) -> None:
    """What a person said of a job's images goes for its zip as well."""
    await tx.execute(
        sa.update(_files)
        .where(
            _files.c.team == team,
            _files.c.job_id == job_id,
            _files.c.review_state.is_distinct_from(state),
            _LIVE,
        )
        .values(review_state=state)
    )


async def delete_unrecorded(tx: Tx, team: str, job_id: int) -> int:
    """Deletes what a job made and enqueue never recorded; how many. Nobody reads those."""
    return await delete_many(tx, _unrecorded(team, job_id), 0.0)


async def to_remove(tx: Tx, limit: int) -> list[Removal]:
    """Deleted files, of all teams, whose blobs may go now."""
    rows = await tx.execute(
        sa.select(_files.c.id, _files.c.blob_key)
        .where(_files.c.remove_at <= tx.now(), _files.c.deleted_at.is_not(None))
        .order_by(_files.c.remove_at)
        .limit(limit)
    )
    return [Removal(row.id, row.blob_key) for row in rows]


async def remove(tx: Tx, file_ids: Sequence[int]) -> None:
    """Forgets deleted files whose blobs are gone."""
    await tx.execute(
        sa.delete(_files).where(_files.c.id.in_(file_ids), _files.c.deleted_at.is_not(None))
    )


async def known_blobs(tx: Tx, blob_keys: Collection[str]) -> set[str]:
    """Those of the keys that have a file, deleted or not, of any team."""
    rows = await tx.execute(sa.select(_files.c.blob_key).where(_files.c.blob_key.in_(blob_keys)))
    return set(rows.scalars())


async def delete_many(tx: Tx, which: sa.ColumnElement[bool], removal_seconds: float) -> int:
    """Sets tombstones, empties folders of them, takes the bytes off what teams store; how many."""
    rows = await tx.execute(
        sa.update(_files)
        .where(which, _LIVE)
        .values(deleted_at=tx.now(), remove_at=tx.after(removal_seconds))
        .returning(_files.c.id, _files.c.team, _files.c.size_bytes)
    )
    deleted = rows.all()
    if deleted:
        # What is in a folder can be counted without a look at the files.
        within = tables.folder_files
        gone = within.c.file_id.in_([row.id for row in deleted])
        await tx.execute(sa.delete(within).where(gone))
    freed: dict[str, int] = {}
    for row in deleted:
        freed[row.team] = freed.get(row.team, 0) + row.size_bytes
    await storage.shrink(tx, freed)
    return len(deleted)


def _select(team: str) -> sa.Select[Any]:
    return sa.select(_files).where(_files.c.team == team, _LIVE)


def _unrecorded(team: str, job_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(
        _files.c.team == team,
        _files.c.job_id == job_id,
        _files.c.kind == FileKind.GENERATED,
        _files.c.recorded_at.is_(None),
        _LIVE,
    )


def _file_or_none(row: sa.Row[Any] | None) -> File | None:
    return None if row is None else file_of(row)


def file_of(row: sa.Row[Any]) -> File:
    """The file of a row of the whole table."""
    return File(
        id=row.id,
        team=row.team,
        kind=FileKind(row.kind),
        filename=row.filename,
        blob_key=row.blob_key,
        content=Content(
            content_type=row.content_type,
            size_bytes=row.size_bytes,
            width=row.width,
            height=row.height,
            sha256=row.sha256,
            crc32=row.crc32,
        ),
        slot=Slot(
            job_id=row.job_id,
            image_index=row.image_index,
            attempt=row.attempt,
            model=row.model,
            preview=row.preview,
        ),
        making=Making(
            inputs=tuple(Input(*one) for one in row.inputs or ()),
            prompt_tokens=row.prompt_tokens,
            output_tokens=row.output_tokens,
            total_tokens=row.total_tokens,
            cost_micros=row.cost_micros,
        ),
        created_at=row.created_at,
        recorded=row.recorded_at is not None,
        review_state=None if row.review_state is None else ReviewState(row.review_state),
        source_task_id=row.source_task_id,
        variant=row.variant,
        batch_id=row.batch_id,
    )
