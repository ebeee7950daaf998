"""Old files and rows, of all teams, removed in bounded steps."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common import request_keys
from libs.common.db import Tx
from services.assets import tables
from services.assets.domain import FileKind
from services.assets.store import files

_files = tables.files
_pins = tables.pins
_used = tables.moodboard_files
_variants = tables.variants
_endings = tables.job_endings
_folders = tables.folders
_within = tables.folder_files
_pending = tables.pending_uploads


async def delete_old(
    tx: Tx, kind: FileKind, age_seconds: float, limit: int, *, removal_seconds: float
) -> int:
    """Deletes files of a kind that are older, and that nothing uses; how many.

    As in DeleteFile the rows are locked first, and who uses them is asked in the next statement:
    who pins a file holds its row too, and is seen then.
    """
    old = (
        sa.select(_files.c.id)
        .where(
            _files.c.kind == kind,
            _files.c.created_at < tx.ago(age_seconds),
            _files.c.deleted_at.is_(None),
            _unused(tx),
        )
        .order_by(_files.c.created_at)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    ids = list((await tx.execute(old)).scalars())
    if not ids:
        return 0
    return await files.delete_many(tx, sa.and_(_files.c.id.in_(ids), _unused(tx)), removal_seconds)


async def remove_folders(tx: Tx, age_seconds: float, limit: int) -> int:
    """Removes folders of batches that are older and hold nothing any more; how many.

    A team's own folders and its default one stay. Locked first, and looked into in the next
    statement: who puts a file into a folder holds its row too, and is seen then. A job of the
    batch that ends later makes the folder anew.
    """
    old = (
        sa.select(_folders.c.id)
        .where(_folders.c.batch_id != 0, _folders.c.created_at < tx.ago(age_seconds), _empty())
        .order_by(_folders.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list((await tx.execute(old)).scalars())
    if not ids:
        return 0
    gone = sa.delete(_folders).where(_folders.c.id.in_(ids), _empty()).returning(_folders.c.id)
    return len((await tx.execute(gone)).all())


async def remove_endings(tx: Tx, age_seconds: float, limit: int) -> int:
    """Forgets jobs that ended so long ago; how many."""
    key = (_endings.c.team, _endings.c.job_id)
    old = (
        sa.select(*key)
        .where(_endings.c.ended_at < tx.ago(age_seconds))
        .order_by(_endings.c.ended_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    names = [tuple(row) for row in await tx.execute(old)]
    if names:
        await tx.execute(sa.delete(_endings).where(sa.tuple_(*key).in_(names)))
    return len(names)


async def remove_keys(tx: Tx, age_seconds: float, limit: int) -> int:
    """Forgets keys that were kept so long ago; how many."""
    return await request_keys.forget(tx, tables.idempotency_keys, age_seconds, limit)


async def remove_uploads(tx: Tx, age_seconds: float, limit: int) -> int:
    """Forgets uploads by URL that were begun so long ago, whatever became of them; how many."""
    old = (
        sa.select(_pending.c.id)
        .where(_pending.c.created_at < tx.ago(age_seconds), _pending.c.expires_at < tx.now())
        .order_by(_pending.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    result = await tx.execute(sa.delete(_pending).where(_pending.c.id.in_(old)))
    return result.rowcount


def _empty() -> sa.ColumnElement[bool]:
    """No file is in the folder."""
    return sa.not_(sa.exists().where(_within.c.folder_id == _folders.c.id))


def _unused(tx: Tx) -> sa.ColumnElement[bool]:
    """No pin, no moodboard and no variant has the file, and its job has ended."""
    pinned = sa.exists().where(
        _pins.c.file_id == _files.c.id,
        sa.or_(_pins.c.expires_at.is_(None), _pins.c.expires_at > tx.now()),
    )
    in_moodboard = sa.exists().where(_used.c.file_id == _files.c.id)
    of_variant = sa.exists().where(
        _variants.c.team == _files.c.team, _variants.c.image_file_id == _files.c.id
    )
    of_live_job = sa.and_(_files.c.kind == FileKind.GENERATED, _files.c.recorded_at.is_(None))
    return sa.not_(sa.or_(pinned, in_moodboard, of_variant, of_live_job))
