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

JobSlot = tuple[str, int, int]
"""A team, one of its jobs, and which image of it."""


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job that has stored an image or has ended, and the file of the slot asked for."""

    ended: bool
    file: File | None


async def look(tx: Tx, slots: Collection[JobSlot]) -> dict[JobSlot, KnownJob]:
    """What is known of these slots' jobs, in one statement; those of other jobs are left out."""
    slot = sa.tuple_(_files.c.team, _files.c.job_id, _files.c.image_index)
    asked = sa.and_(
        _files.c.team == _endings.c.team,
        _files.c.job_id == _endings.c.job_id,
        slot.in_(list(slots)),
        _files.c.kind == FileKind.GENERATED,
        _files.c.deleted_at.is_(None),
    )
    job = sa.tuple_(_endings.c.team, _endings.c.job_id)
    rows = await tx.execute(
        sa.select(
            _endings.c.team.label("job_team"),
            _endings.c.job_id.label("known_job"),
            _endings.c.ended_at,
            _files,
        )
        .join_from(_endings, _files, asked, isouter=True)
        .where(job.in_(list({(team, job_id) for team, job_id, _ in slots})))
    )
    ended: dict[Job, bool] = {}
    found: dict[JobSlot, File] = {}
    for row in rows:
        ended[row.job_team, row.known_job] = row.ended_at is not None
        if row.id is not None:
            found[row.team, row.job_id, row.image_index] = file_of(row)
    return {one: KnownJob(ended[one[:2]], found.get(one)) for one in slots if one[:2] in ended}


async def ended_among(tx: Tx, jobs: Collection[Job]) -> set[Job]:
    """Those of the jobs that have ended."""
    job = sa.tuple_(_endings.c.team, _endings.c.job_id)
    rows = await tx.execute(
        sa.select(_endings.c.team, _endings.c.job_id).where(
            job.in_(list(jobs)), _endings.c.ended_at.is_not(None)
        )
    )
    return {(row.team, row.job_id) for row in rows}


async def heard(tx: Tx, team: str, job_ids: Collection[int]) -> dict[int, int]:
    """Those of a team's jobs that have ended → when the newest review known of them was made."""
    rows = await tx.execute(
        sa.select(_endings.c.job_id, _endings.c.reviewed_us).where(
            _endings.c.team == team,
            _endings.c.job_id.in_(job_ids),
            _endings.c.ended_at.is_not(None),
        )
    )
    return {row.job_id: row.reviewed_us for row in rows}


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


async def reopen(tx: Tx, team: str, job_id: int) -> None:
    """The job has not ended after all."""
    await tx.execute(
        sa.update(_endings)
        .where(_endings.c.team == team, _endings.c.job_id == job_id)
        .values(ended_at=None)
    )


async def review_state(tx: Tx, team: str, job_id: int) -> ReviewState | None:
    """What was said of the job; it stays so until the transaction ends."""
    state = await tx.scalar(
        sa.select(_endings.c.review_state)
        .where(_endings.c.team == team, _endings.c.job_id == job_id)
        .with_for_update(read=True)
    )
    return None if state is None else ReviewState(state)
