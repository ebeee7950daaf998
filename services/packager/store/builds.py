"""Who builds which archive: leases, fences, and how builds end.

Every write of a builder names the fence of its attempt, and does nothing where that is stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.packager import tables
from services.packager.domain import (
    Archive,
    ArchiveState,
    Attempt,
    Fault,
    WrittenZip,
    sources_of,
)
from services.packager.store.archives import archive_of, contents_of

_archives = tables.archives

CANDIDATES = 200  # of which the teams served longest ago are taken


async def take(
    tx: Tx, limit: int, lease_seconds: float, served: Mapping[str, int]
) -> list[Attempt]:
    """Begins an attempt at up to `limit` due archives: a lease and a new fence for each.

    Teams take turns: one team's hundredth archive waits behind another's first.

    Args:
        tx: the transaction.
        limit: archives at most.
        lease_seconds: how long they are ours without renewal.
        served: team → a number that grows with each time it was served; the lowest goes first.
    """
    due = await _due_in_turns(tx, limit, served)
    if not due:
        return []
    # Locked by id, for PostgreSQL locks no rows of a ranking; what another has taken is skipped.
    rows = await tx.execute(
        sa.select(_archives.c.id)
        .where(_archives.c.id.in_(due), *_is_due(tx))
        .with_for_update(skip_locked=True)
    )
    taken = await tx.execute(
        sa.update(_archives)
        .where(_archives.c.id.in_(rows.scalars().all()))
        .values(
            attempts=_archives.c.attempts + 1,
            fence=_archives.c.fence + 1,
            lease_until=tx.after(lease_seconds),
            images_written=0,
        )
        .returning(_archives)
    )
    return [Attempt(archive_of(row), contents_of(row)) for row in taken]


def _is_due(tx: Tx) -> tuple[sa.ColumnElement[bool], ...]:
    free = sa.or_(_archives.c.lease_until.is_(None), _archives.c.lease_until < tx.now())
    return _archives.c.state == ArchiveState.PENDING, _archives.c.try_at <= tx.now(), free


async def _due_in_turns(tx: Tx, limit: int, served: Mapping[str, int]) -> list[int]:
    held = _archives.c.lease_until >= tx.now()
    # A team's builds under way count as its turns.
    turn = sa.func.row_number().over(
        partition_by=_archives.c.team,
        order_by=[sa.case((held, 0), else_=1), _archives.c.try_at, _archives.c.id],
    )
    ranked = (
        sa.select(
            _archives.c.id,
            _archives.c.team,
            _archives.c.try_at,
            held.label("held"),
            turn.label("turn"),
        )
        .where(_archives.c.state == ArchiveState.PENDING, _archives.c.try_at <= tx.now())
        .subquery()
    )
    rows = await tx.execute(
        sa.select(ranked.c.id, ranked.c.team, ranked.c.turn)
        .where(sa.or_(ranked.c.held.is_(None), sa.not_(ranked.c.held)))
        .order_by(ranked.c.turn, ranked.c.try_at, ranked.c.id)
        .limit(CANDIDATES)
    )
    first = sorted(rows, key=lambda row: (row.turn, served.get(row.team, 0)))
    return [row.id for row in first[:limit]]


async def renew(tx: Tx, held: Mapping[int, int], lease_seconds: float) -> set[int]:
    """Extends the leases of builds (archive id → fence); the ids of those that still hold."""
    claim = sa.tuple_(_archives.c.id, _archives.c.fence)
    rows = await tx.execute(
        sa.update(_archives)
        .where(claim.in_(list(held.items())), _archives.c.state == ArchiveState.PENDING)
        .values(lease_until=tx.after(lease_seconds))
        .returning(_archives.c.id)
    )
    return set(rows.scalars())


async def hand_back(tx: Tx, held: Mapping[int, int]) -> None:
    """Ends attempts that were broken off through no fault of theirs; none is counted."""
    claim = sa.tuple_(_archives.c.id, _archives.c.fence)
    await tx.execute(
        sa.update(_archives)
        .where(claim.in_(list(held.items())), _archives.c.state == ArchiveState.PENDING)
        .values(attempts=_archives.c.attempts - 1, lease_until=None)
    )


async def revoke_all(tx: Tx) -> None:
    """Ends every lease: at the start of the only packager of a database, whose past is over."""
    await tx.execute(
        sa.update(_archives)
        .where(_archives.c.state == ArchiveState.PENDING)
        .values(lease_until=None)
    )


async def note_progress(tx: Tx, archive: Archive, images_written: int) -> None:
    """How many images are in the zip by now; nothing where the attempt is stale."""
    await _mine(tx, archive, images_written=images_written)


async def note_written(tx: Tx, archive: Archive, written: WrittenZip | None) -> bool:
    """Remembers the whole zip in the blob store, or forgets it; False: the attempt is stale."""
    return await _mine(
        tx,
        archive,
        written_key=written.blob_key if written else None,
        written_bytes=written.size_bytes if written else None,
        written_sha256=written.sha256 if written else None,
        written_crc32=written.crc32 if written else None,
    )


async def ready(tx: Tx, archive: Archive, file_id: int, size_bytes: int) -> bool:
    """PENDING → READY, to be reported; False: the attempt is stale."""
    return await _mine(
        tx,
        archive,
        state=ArchiveState.READY,
        file_id=file_id,
        size_bytes=size_bytes,
        images_written=_archives.c.image_count,
        **_ended(tx),
    )


async def failed(tx: Tx, archive: Archive, fault: Fault) -> bool:
    """PENDING → FAILED, to be reported; False: the attempt is stale."""
    return await _mine(
        tx,
        archive,
        state=ArchiveState.FAILED,
        error_reason=fault.reason,
        error_message=fault.message,
        **_ended(tx),
    )


async def later(tx: Tx, archive: Archive, wait_seconds: float) -> bool:
    """Ends the attempt; the next may begin after a wait. False: the attempt is stale."""
    return await _mine(tx, archive, lease_until=None, try_at=tx.after(wait_seconds))


def _ended(tx: Tx) -> dict[str, Any]:
    return {
        "finished_at": tx.now(),
        "lease_until": None,
        "written_key": None,
        "written_bytes": None,
        "written_sha256": None,
        "written_crc32": None,
        # Jobs alone keep word of their archive.
        "report_at": sa.case((_archives.c.job_id.is_(None), sa.null()), else_=tx.now()),
        "report_failures": 0,
    }


async def _mine(tx: Tx, archive: Archive, **values: Any) -> bool:
    rows = await tx.execute(
        sa.update(_archives)
        .where(
            _archives.c.id == archive.id,
            _archives.c.fence == archive.fence,
            _archives.c.state.in_(sources_of(ArchiveState.READY)),
        )
        .values(values)
        .returning(_archives.c.id)
    )
    return rows.one_or_none() is not None
