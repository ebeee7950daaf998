"""Moodboards, and the files they use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from libs.common.many_rows import InsertRows
from services.assets import tables
from services.assets.domain import Moodboard, MoodboardContent

_moodboards = tables.moodboards
_used = tables.moodboard_files
_add_used = InsertRows(_used, ("moodboard_id", "team", "role", "position", "file_id"))

_POSITIVE = "positive"
_NEGATIVE = "negative"
_BACKGROUND = "background"
_MODEL = "model"


async def add(tx: Tx, team: str, content: MoodboardContent) -> Moodboard:
    """A new moodboard. The caller holds its files."""
    rows = await tx.execute(
        sa.insert(_moodboards)
        .values(
            team=team,
            name=content.name,
            style_appendix=content.style_appendix,
            revision=1,
            created_at=tx.now(),
            updated_at=tx.now(),
        )
        .returning(_moodboards)
    )
    row = rows.one()
    await _use(tx, team, row.id, content)
    return _moodboard(row, content)


async def replace(tx: Tx, team: str, moodboard_id: int, content: MoodboardContent) -> Moodboard:
    """The moodboard with other content and its next revision. The caller holds it and its files."""
    rows = await tx.execute(
        sa.update(_moodboards)
        .where(_moodboards.c.team == team, _moodboards.c.id == moodboard_id)
        .values(
            name=content.name,
            style_appendix=content.style_appendix,
            revision=_moodboards.c.revision + 1,
            updated_at=tx.now(),
        )
        .returning(_moodboards)
    )
    row = rows.one()
    await tx.execute(
        sa.delete(_used).where(_used.c.team == team, _used.c.moodboard_id == moodboard_id)
    )
    await _use(tx, team, moodboard_id, content)
    return _moodboard(row, content)


async def delete(tx: Tx, team: str, moodboard_id: int) -> bool:
    """Forgets a moodboard; whether there was one. Its files are free again."""
    result = await tx.execute(
        sa.delete(_moodboards).where(_moodboards.c.team == team, _moodboards.c.id == moodboard_id)
    )
    return result.rowcount == 1


async def count(tx: Tx, team: str) -> int:
    """How many the team keeps."""
    query = sa.select(sa.func.count()).where(_moodboards.c.team == team)
    return int(await tx.scalar(query))


async def find(tx: Tx, team: str, moodboard_id: int) -> Moodboard | None:
    """A moodboard of the team, in one statement: its files are those of its revision."""
    chosen = sa.select(_moodboards).where(
        _moodboards.c.team == team, _moodboards.c.id == moodboard_id
    )
    return next(iter(await _read(tx, chosen)), None)


async def lock(tx: Tx, team: str, moodboard_id: int) -> int | None:
    """The revision of a moodboard, which nobody else changes until the transaction ends."""
    revision: int | None = await tx.scalar(
        _revision(team, moodboard_id).with_for_update(key_share=True)
    )
    return revision


async def hold(tx: Tx, team: str, moodboard_id: int) -> bool:
    """Keeps a moodboard as it is until the transaction ends; False: there is none."""
    query = _revision(team, moodboard_id).with_for_update(read=True)
    return await tx.scalar(query) is not None


async def page(tx: Tx, team: str, *, before_id: int | None, limit: int) -> list[Moodboard]:
    """The team's moodboards, newest first, older than `before_id`."""
    chosen = sa.select(_moodboards).where(_moodboards.c.team == team)
    if before_id is not None:
        chosen = chosen.where(_moodboards.c.id < before_id)
    return await _read(tx, chosen.order_by(_moodboards.c.id.desc()).limit(limit))


async def uses(tx: Tx, team: str, file_id: int) -> bool:
    """Whether a moodboard of the team uses the file."""
    found = sa.exists().where(_used.c.team == team, _used.c.file_id == file_id)
    return bool(await tx.scalar(sa.select(found)))


def _revision(team: str, moodboard_id: int) -> sa.Select[Any]:
    return sa.select(_moodboards.c.revision).where(
        _moodboards.c.team == team, _moodboards.c.id == moodboard_id
    )


async def _use(tx: Tx, team: str, moodboard_id: int, content: MoodboardContent) -> None:
    rows = [
        {
            "moodboard_id": moodboard_id,
            "team": team,
            "role": role,
            "position": position,
            "file_id": file_id,
        }
        for role, position, file_id in _roles(content)
    ]
    await _add_used(tx, rows)


def _roles(content: MoodboardContent) -> Iterator[tuple[str, int, int]]:
    for role, file_ids in (
        (_POSITIVE, content.positive_file_ids),
        (_NEGATIVE, content.negative_file_ids),
        (_BACKGROUND, [content.background_file_id]),
        (_MODEL, [content.model_file_id]),
    ):
        yield from (
            (role, position, file_id) for position, file_id in enumerate(file_ids) if file_id
        )


async def _read(tx: Tx, chosen: sa.Select[Any]) -> list[Moodboard]:
    """The moodboards and their files, in one statement, newest first."""
    few = chosen.subquery()
    rows = await tx.execute(
        sa.select(few, _used.c.role, _used.c.file_id)
        .join(
            _used,
            sa.and_(_used.c.moodboard_id == few.c.id, _used.c.team == few.c.team),
            isouter=True,
        )
        .order_by(few.c.id.desc(), _used.c.role, _used.c.position)
    )
    return [_gathered(list(lines)) for _, lines in groupby(rows, key=lambda row: row.id)]


def _gathered(lines: list[sa.Row[Any]]) -> Moodboard:
    """One moodboard from its rows: one for each of its files, or a single one without a file."""
    by_role: dict[str, list[int]] = {}
    for line in lines:
        if line.role is not None:
            by_role.setdefault(line.role, []).append(line.file_id)
    first = lines[0]
    content = MoodboardContent(
        name=first.name,
        positive_file_ids=tuple(by_role.get(_POSITIVE, ())),
        negative_file_ids=tuple(by_role.get(_NEGATIVE, ())),
        background_file_id=_only(by_role.get(_BACKGROUND, ())),
        model_file_id=_only(by_role.get(_MODEL, ())),
        style_appendix=first.style_appendix,
    )
    return _moodboard(first, content)


def _only(file_ids: Iterable[int]) -> int:
    return next(iter(file_ids), 0)


def _moodboard(row: sa.Row[Any], content: MoodboardContent) -> Moodboard:
    return Moodboard(
        id=row.id,
        content=content,
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
