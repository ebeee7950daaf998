"""Batches: their rows, and what their jobs say together, in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.batch import Batch, Tally, finished_at, image_counts, job_counts
from services.enqueue.domain import ArchiveState, Job, JobState, Usage
from services.enqueue.store import images
from services.enqueue.store.rows import job_of

_batches = tables.batches
_jobs = tables.jobs
_images = tables.images
_retries = _jobs.alias("retries")

# See services.enqueue.batch: retried jobs do not speak, canceled retries neither.
_SPEAKS = sa.and_(
    sa.or_(_jobs.c.retry_of.is_(None), _jobs.c.state != JobState.CANCELED),
    ~sa.exists().where(
        _retries.c.retry_of == _jobs.c.id,
        # The words of the index jobs_retry, which a bound value would not match.
        _retries.c.retry_of.is_not(None),
        _retries.c.state != sa.literal_column("'CANCELED'"),
    ),
)


async def add(tx: Tx, named: Sequence[tuple[str, str]]) -> list[int]:
    """Stores new batches of (team, name); their ids, in order."""
    if not named:
        return []
    rows = await tx.execute(
        sa.insert(_batches)
        .values(created_at=tx.now())
        .returning(_batches.c.id, sort_by_parameter_order=True),
        [{"team": team, "name": name} for team, name in named],
    )
    return [row.id for row in rows]


async def names(tx: Tx, batch_ids: Collection[int]) -> dict[int, str]:
    """The names of batches."""
    if not batch_ids:
        return {}
    rows = await tx.execute(
        sa.select(_batches.c.id, _batches.c.name).where(_batches.c.id.in_(batch_ids))
    )
    return {row.id: row.name for row in rows}


async def find(tx: Tx, batch_id: int, team: str) -> Batch | None:
    """One batch of a team as it stands."""
    found = await find_many(tx, [batch_id], team)
    return found[0] if found else None


async def find_many(tx: Tx, batch_ids: Collection[int], team: str) -> list[Batch]:
    """Batches of a team as they stand, newest first, in four queries."""
    rows = await tx.execute(
        sa.select(_batches)
        .where(_batches.c.id.in_(batch_ids), _batches.c.team == team)
        .order_by(_batches.c.id.desc())
    )
    kept = rows.all()
    if not kept:
        return []
    ids = [row.id for row in kept]
    tallies = await _tallies(tx, ids, team)
    job_ids = await _job_ids(tx, ids, team)
    usage = await _usage(tx, ids, team)
    return [
        Batch(
            id=row.id,
            team=row.team,
            name=row.name,
            created_at=row.created_at,
            jobs=job_counts(tallies.get(row.id, ())),
            images=image_counts(tallies.get(row.id, ())),
            job_ids=tuple(job_ids.get(row.id, ())),
            usage=usage.get(row.id, Usage()),
            finished_at=finished_at(tallies.get(row.id, ())),
        )
        for row in kept
    ]


async def exists(tx: Tx, batch_id: int, team: str) -> bool:
    """Whether the team has such a batch."""
    which = sa.exists().where(_batches.c.id == batch_id, _batches.c.team == team)
    return bool(await tx.scalar(sa.select(which)))


async def unsettled(tx: Tx, batch_id: int, team: str) -> bool:
    """Whether something is still to come from one of its jobs, retried ones and zips included."""
    pending = sa.or_(
        _jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING)),
        _jobs.c.archive_state == ArchiveState.PENDING,
    )
    which = sa.exists().where(_jobs.c.batch_id == batch_id, _jobs.c.team == team, pending)
    return bool(await tx.scalar(sa.select(which)))


async def page(tx: Tx, team: str, *, before_id: int | None, limit: int) -> list[Batch]:
    """A team's batches with id below before_id, newest first."""
    statement = sa.select(_batches.c.id).where(_batches.c.team == team)
    if before_id is not None:
        statement = statement.where(_batches.c.id < before_id)
    ids = (await tx.execute(statement.order_by(_batches.c.id.desc()).limit(limit))).scalars().all()
    return await find_many(tx, ids, team) if ids else []


async def _tallies(tx: Tx, batch_ids: Collection[int], team: str) -> dict[int, list[Tally]]:
    rows = await tx.execute(
        sa.select(
            _jobs.c.batch_id,
            _jobs.c.state,
            sa.func.count().label("jobs"),
            sa.func.sum(_jobs.c.number_of_variations).label("images"),
            sa.func.sum(_jobs.c.images_done).label("images_done"),
            sa.func.sum(_jobs.c.images_failed).label("images_failed"),
            sa.func.max(_jobs.c.finished_at).label("finished_at"),
        )
        .where(_jobs.c.batch_id.in_(batch_ids), _jobs.c.team == team, _SPEAKS)
        .group_by(_jobs.c.batch_id, _jobs.c.state)
    )
    found: dict[int, list[Tally]] = {}
    for row in rows:
        tally = Tally(
            JobState(row.state),
            row.jobs,
            row.images,
            row.images_done,
            row.images_failed,
            row.finished_at,
        )
        found.setdefault(row.batch_id, []).append(tally)
    return found


async def _job_ids(tx: Tx, batch_ids: Collection[int], team: str) -> dict[int, list[int]]:
    rows = await tx.execute(
        sa.select(_jobs.c.batch_id, _jobs.c.id)
        .where(_jobs.c.batch_id.in_(batch_ids), _jobs.c.team == team, _SPEAKS)
        .order_by(_jobs.c.batch_id, _jobs.c.variant_index, _jobs.c.id)
    )
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(row.batch_id, []).append(row.id)
    return found


async def _usage(tx: Tx, batch_ids: Collection[int], team: str) -> dict[int, Usage]:
    rows = await tx.execute(
        sa.select(
            _jobs.c.batch_id,
            sa.func.sum(_images.c.prompt_tokens).label("prompt_tokens"),
            sa.func.sum(_images.c.output_tokens).label("output_tokens"),
            sa.func.sum(_images.c.total_tokens).label("total_tokens"),
            sa.func.sum(_images.c.cost_micros).label("cost_micros"),
        )
        .join(_images, _images.c.job_id == _jobs.c.id)
        .where(_jobs.c.batch_id.in_(batch_ids), _jobs.c.team == team)
        .group_by(_jobs.c.batch_id)
    )
    return {
        row.batch_id: Usage(
            int(row.prompt_tokens or 0),
            int(row.output_tokens or 0),
            int(row.total_tokens or 0),
            int(row.cost_micros or 0),
        )
        for row in rows
    }


async def jobs_of(tx: Tx, batch_id: int, team: str) -> list[Job]:
    """All jobs of a team's batch with their images, those that do not speak included; by id."""
    rows = await tx.execute(
        sa.select(_jobs)
        .where(_jobs.c.batch_id == batch_id, _jobs.c.team == team)
        .order_by(_jobs.c.id)
    )
    kept = rows.all()
    slots = await images.of_jobs(tx, [row.id for row in kept])
    return [job_of(row, slots.get(row.id, ())) for row in kept]


async def lock_jobs(tx: Tx, batch_id: int, team: str) -> list[Job]:
    """All jobs of a team's batch without their images, their rows locked in the order of ids."""
    rows = await tx.execute(
        sa.select(_jobs)
        .where(_jobs.c.batch_id == batch_id, _jobs.c.team == team)
        .order_by(_jobs.c.id)
        .with_for_update(key_share=True)
    )
    return [job_of(row) for row in rows]


async def pin_tokens(tx: Tx, batch_id: int, team: str) -> dict[int, str]:
    """The pin tokens of all jobs of a team's batch: job id → token, by variant."""
    rows = await tx.execute(
        sa.select(_jobs.c.id, _jobs.c.pin_token)
        .where(_jobs.c.batch_id == batch_id, _jobs.c.team == team)
        .order_by(_jobs.c.variant_index, _jobs.c.id)
    )
    return {row.id: row.pin_token for row in rows}
