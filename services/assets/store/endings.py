"""Which jobs have ended: the row that storing an image and taking in the end both lock."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from libs.common.db import Tx
from services.assets import tables
from services.assets.domain import File, FileKind, Review, ReviewState
from services.assets.store.files import file_of

_endings = tables.job_endings
_files = tables.files

Job = tuple[str, int]
"""A team and one of its jobs."""


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job that has stored an image or has ended, and the file of the slot asked for."""

    ended: bool
    file: File | None


async def look(tx: Tx, team: str, job_id: int, image_index: int) -> KnownJob | None:
    """What is known of a job and one of its slots, in one statement; None: nothing yet."""
    slot = sa.and_(
        _files.c.team == _endings.c.team,
        _files.c.job_id == _endings.c.job_id,
        _files.c.image_index == image_index,
        _files.c.kind == FileKind.GENERATED,
        _files.c.deleted_at.is_(None),
    )
    rows = await tx.execute(
        sa.select(_endings.c.ended_at, _files)
        .join_from(_endings, _files, slot, isouter=True)
        .where(_endings.c.team == team, _endings.c.job_id == job_id)
    )
    row = rows.one_or_none()
    if row is None:
        return None
    return KnownJob(row.ended_at is not None, None if row.id is None else file_of(row))


async def ended_among(tx: Tx, jobs: Collection[Job]) -> set[Job]:
    """Those of the jobs that have ended."""
    job = sa.tuple_(_endings.c.team, _endings.c.job_id)
    rows = await tx.execute(
        sa.select(_endings.c.team, _endings.c.job_id).where(
            job.in_(list(jobs)), _endings.c.ended_at.is_not(None)
        )
    )
    return {(row.team, row.job_id) for row in rows}


async def hold_open(tx: Tx, team: str, job_id: int, *, known: bool) -> bool:
    """Keeps the end of a job from being taken in until the transaction ends; False: it has.

    Args:
        tx: where.
        team: whose.
        job_id: which.
        known: `look` has seen it.
    """
    if not known:
        insert = tx.insert(_endings).values(team=team, job_id=job_id).on_conflict_do_nothing()
        if (await tx.execute(insert.returning(_endings.c.job_id))).one_or_none() is not None:
            return True  # nobody else sees the row before we commit
    rows = await tx.execute(
        sa.select(_endings.c.ended_at)
        .where(_endings.c.team == team, _endings.c.job_id == job_id)
        .with_for_update(read=True)
    )
    row = rows.one_or_none()
    # A row goes long after its job's end.
    return row is not None and row.ended_at is None


async def end(tx: Tx, team: str, job_id: int, review: Review) -> bool:
    """The job has ended; waits for images that are being stored.

    True where nothing newer is known of its review: then that is what goes.
    """
    newer = review.made_us >= _endings.c.reviewed_us
    state, made_us = sa.literal(review.state, sa.Text), sa.literal(review.made_us, sa.BigInteger)
    rows = await tx.execute(
        tx.insert(_endings)
        .values(
            team=team,
            job_id=job_id,
            ended_at=tx.now(),
            review_state=review.state,
            reviewed_us=review.made_us,
        )
        .on_conflict_do_update(
            index_elements=[_endings.c.team, _endings.c.job_id],
            set_={
                "ended_at": sa.func.coalesce(_endings.c.ended_at, tx.now()),
                "review_state": sa.case((newer, state), else_=_endings.c.review_state),
                "reviewed_us": sa.case((newer, made_us), else_=_endings.c.reviewed_us),
            },
        )
        .returning(_endings.c.reviewed_us)
    )
    return bool(rows.scalar_one() == review.made_us)


async def review_state(tx: Tx, team: str, job_id: int) -> ReviewState | None:
    """What was said of the job; it stays so until the transaction ends."""
    state = await tx.scalar(
        sa.select(_endings.c.review_state)
        .where(_endings.c.team == team, _endings.c.job_id == job_id)
        .with_for_update(read=True)
    )
    return None if state is None else ReviewState(state)
