"""Folders: sets of files, and what jobs put into them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.assets import tables
from services.assets.domain import IMAGE_KINDS, File, Folder, FolderKind, NewFolder
from services.assets.store.files import APPROVED, VISIBLE, file_of

_folders = tables.folders
_within = tables.folder_files
_files = tables.files


async def add(tx: Tx, team: str, new: NewFolder) -> Folder | None:
    """The new folder; None when the team has one like it."""
    insert = tx.insert(_folders).values(_row(tx, team, new)).on_conflict_do_nothing()
    row = (await tx.execute(insert.returning(_folders))).one_or_none()
    return None if row is None else _folder(row)


async def count_named(tx: Tx, team: str) -> int:
    """How many folders the team has made itself."""
    query = sa.select(sa.func.count()).where(
        _folders.c.team == team, _folders.c.kind == FolderKind.NAMED
    )
    return int(await tx.scalar(query))


async def exists(tx: Tx, team: str, folder_id: int) -> bool:
    """Whether the team has the folder."""
    found = sa.exists().where(_folders.c.team == team, _folders.c.id == folder_id)
    return bool(await tx.scalar(sa.select(found)))


async def find(tx: Tx, team: str, folder_id: int) -> Folder | None:
    """A folder of the team, its files not counted."""
    rows = await tx.execute(
        sa.select(_folders).where(_folders.c.team == team, _folders.c.id == folder_id)
    )
    row = rows.one_or_none()
    return None if row is None else _folder(row)


async def page(
    tx: Tx, team: str, batch_id: int, *, before_id: int | None, limit: int
) -> list[Folder]:
    """The team's folders, of this batch (0: all), newest first; their files not counted."""
    query = sa.select(_folders).where(_folders.c.team == team)
    if batch_id:
        query = query.where(_folders.c.batch_id == batch_id)
    if before_id is not None:
        query = query.where(_folders.c.id < before_id)
    rows = await tx.execute(query.order_by(_folders.c.id.desc()).limit(limit))
    return [_folder(row) for row in rows]


async def count_files(tx: Tx, team: str, folder_ids: Collection[int]) -> dict[int, int]:
    """How many files are in each folder that has any; what is deleted leaves its folders."""
    rows = await tx.execute(
        sa.select(_within.c.folder_id, sa.func.count().label("files"))
        .where(_within.c.team == team, _within.c.folder_id.in_(folder_ids))
        .group_by(_within.c.folder_id)
    )
    return {row.folder_id: row.files for row in rows}


async def page_of_files(
    tx: Tx, team: str, folder_id: int, *, before_id: int | None, limit: int
) -> list[File]:
    """The visible files in a folder, newest first, older than `before_id`."""
    newest = sa.select(_within.c.file_id).where(
        _within.c.team == team, _within.c.folder_id == folder_id
    )
    if before_id is not None:
        newest = newest.where(_within.c.file_id < before_id)
    # The limit is inside, where it holds PostgreSQL to the folder: it would rather go through all
    # files from the newest on, whosever they are, until enough are found to be in the folder.
    few = newest.order_by(_within.c.file_id.desc()).limit(limit).subquery()
    rows = await tx.execute(
        sa.select(_files)
        .join(few, few.c.file_id == _files.c.id)
        .where(_files.c.team == team, VISIBLE)
        .order_by(_files.c.id.desc())
    )
    return [file_of(row) for row in rows]


async def image_ids(
    tx: Tx, team: str, folder_id: int, limit: int, *, approved_only: bool
) -> list[int]:
    """The images in a folder, oldest first; where asked for without those a review hides."""
    query = (
        sa.select(_within.c.file_id)
        .join(_files, _files.c.id == _within.c.file_id)
        .where(_in_folder(team, folder_id), _files.c.kind.in_(IMAGE_KINDS))
    )
    if approved_only:
        query = query.where(APPROVED)
    rows = await tx.execute(query.order_by(_within.c.file_id).limit(limit))
    return list(rows.scalars())


async def ensure(tx: Tx, team: str, wanted: Sequence[NewFolder]) -> list[int]:
    """The ids of these folders (none NAMED), made where the team has none like them.

    Whoever makes one of them first wins: the unique indexes decide, and the others wait for its
    commit. All take them in the order given, so that two can never wait for each other.
    """
    if not wanted:
        return []
    found = await _like(tx, team, wanted)
    missing = [new for new in wanted if _key(new) not in found]
    if missing:
        rows = [_row(tx, team, new) for new in missing]
        await tx.execute(tx.insert(_folders).values(rows).on_conflict_do_nothing())
        found = await _like(tx, team, wanted)
    return [found[_key(new)] for new in wanted]


async def put(tx: Tx, team: str, folder_ids: Collection[int], file_ids: Collection[int]) -> None:
    """Puts each of the files into each of the folders; what is in one stays."""
    everything = (
        sa.select(_folders.c.id, _files.c.id, _files.c.team, tx.now())
        .join_from(_folders, _files, _files.c.team == _folders.c.team)
        .where(_folders.c.team == team, _folders.c.id.in_(folder_ids), _files.c.id.in_(file_ids))
    )
    insert = tx.insert(_within).from_select(
        ["folder_id", "file_id", "team", "added_at"], everything
    )
    await tx.execute(insert.on_conflict_do_nothing())


_Key = tuple[str, int, int]


def _key(folder: NewFolder) -> _Key:
    return (folder.kind, folder.batch_id, folder.variant_index)


async def _like(tx: Tx, team: str, wanted: Sequence[NewFolder]) -> dict[_Key, int]:
    alike = [
        sa.and_(
            _folders.c.kind == new.kind,
            _folders.c.batch_id == new.batch_id,
            _folders.c.variant_index == new.variant_index,
        )
        for new in wanted
    ]
    rows = await tx.execute(
        sa.select(_folders.c.id, _folders.c.kind, _folders.c.batch_id, _folders.c.variant_index)
        .where(_folders.c.team == team)
        .where(sa.or_(*alike))
    )
    return {(row.kind, row.batch_id, row.variant_index): row.id for row in rows}


def _in_folder(team: str, folder_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(
        _within.c.team == team,
        _within.c.folder_id == folder_id,
        _files.c.team == team,
        VISIBLE,
    )


def _row(tx: Tx, team: str, new: NewFolder) -> dict[str, Any]:
    return {
        "team": team,
        "kind": new.kind,
        "name": new.name,
        "batch_id": new.batch_id,
        "variant_index": new.variant_index,
        "created_at": tx.now(),
    }


def _folder(row: sa.Row[Any]) -> Folder:
    return Folder(
        id=row.id,
        name=row.name,
        kind=FolderKind(row.kind),
        batch_id=row.batch_id,
        variant_index=row.variant_index,
        created_at=row.created_at,
    )
