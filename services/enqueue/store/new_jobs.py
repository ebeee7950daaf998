"""Storing new jobs, with a row and slots each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from libs.common.db import Instant, Tx
from libs.common.many_rows import InsertRows
from services.enqueue import tables
from services.enqueue.domain import ArchiveState, Image, ImageState, Job, JobSpec, JobState
from services.enqueue.prompt import PromptStrategy
from services.enqueue.store.rows import job_of

_jobs = tables.jobs
_TIMES = ("created_at", "confirm_at", "admitted_at", "ring_at")
_add_slots = InsertRows(tables.images, ("job_id", "image_index", "team", "state", "attempt"))


async def add(
    tx: Tx,
    specs: Sequence[JobSpec],
    *,
    admitted: Collection[str],
    max_attempts: int,
    ring: float,
    confirm: float,
    paying: Collection[str] = (),
) -> list[Job]:
    """Stores new jobs with their slots; the jobs, in order.

    Args:
        tx: the transaction, which holds the teams' locks.
        specs: the jobs, pin tokens distinct.
        admitted: pin tokens of those that get a place at once.
        max_attempts: attempts each may use.
        ring: seconds until an unanswered doorbell is rung again.
        confirm: seconds until it is said once more that they were enqueued.
        paying: teams whose jobs hold a credit per image; the ledger's part is `ledger.hold`.
    """
    rows = [
        _new_row(spec, max_attempts, spec.pin_token in admitted)
        | {"credits_held": spec.count if spec.team in paying else None}
        for spec in specs
    ]
    inserted = {row.pin_token: row for row in await _insert(tx, rows, ring, confirm)}
    added = [
        job_of(inserted[spec.pin_token], tuple(map(_new_image, range(1, spec.count + 1))))
        for spec in specs
    ]
    slots = [
        {
            "job_id": job.id,
            "image_index": image.index,
            "team": job.spec.team,
            "state": image.state,
            "attempt": image.attempt,
        }
        for job in added
        for image in job.images
    ]
    await _add_slots(tx, slots)
    return added


async def _insert(
    tx: Tx, rows: Sequence[dict[str, Any]], ring: float, confirm: float
) -> Sequence[sa.Row[Any]]:
    """The stored rows, in any order; `is_admitted` of each says whether it gets its times."""
    if tx.on_postgres:
        spans = {"ring": timedelta(seconds=ring), "confirm": timedelta(seconds=confirm)}
        return (await tx.execute(_all_at_once(tuple(rows[0])), {"all": rows, **spans})).all()
    admitted = sa.bindparam("is_admitted", type_=sa.Boolean())
    values = _times(admitted, tx.now(), ring_at=tx.after(ring), confirm_at=tx.after(confirm))
    times = dict(zip(_TIMES, values, strict=True))
    return (await tx.execute(sa.insert(_jobs).values(times).returning(_jobs), rows)).all()


def _times(is_admitted: Any, now: Any, *, ring_at: Any, confirm_at: Any) -> tuple[Any, ...]:
    return (now, confirm_at, sa.case((is_admitted, now)), sa.case((is_admitted, ring_at)))


@cache
def _all_at_once(given_names: tuple[str, ...]) -> Any:
    """PostgreSQL's statement: of one value, however many rows.

    As parameters, a hundred jobs would be a statement of five thousand, which takes longer to write
    and to read than to carry out.
    """
    names = [name for name in given_names if name != "is_admitted"]
    given = (
        sa.func.jsonb_to_recordset(sa.bindparam("all", type_=postgresql.JSONB()))
        .table_valued(
            *(sa.column(name, _jobs.c[name].type) for name in names),
            sa.column("is_admitted", sa.Boolean()),
        )
        .render_derived(name="given", with_types=True)
    )
    now = sa.func.clock_timestamp(type_=Instant())
    ring_at, confirm_at = (
        sa.type_coerce(now + sa.bindparam(span, type_=sa.Interval()), Instant())
        for span in ("ring", "confirm")
    )
    times = _times(given.c.is_admitted, now, ring_at=ring_at, confirm_at=confirm_at)
    chosen = sa.select(*(given.c[name] for name in names), *times)
    return sa.insert(_jobs).from_select([*names, *_TIMES], chosen).returning(_jobs)


def _new_image(index: int) -> Image:
    return Image(
        index, ImageState.PENDING, attempt=0, made=None, fault=None, done_at=None, shot=index
    )


def _new_row(spec: JobSpec, max_attempts: int, admitted: bool) -> dict[str, Any]:  # noqa: FBT001 - a fact
    board = spec.moodboard
    return {
        "team": spec.team,
        "type": spec.type,
        "lane": spec.lane,
        "quality": spec.quality,
        "format": spec.format,
        "schema_key": spec.schema_key,
        "input": dict(spec.values),
        "aspect_ratio": spec.aspect_ratio,
        "number_of_variations": spec.count,
        "inputs": [[i.role, i.file_id] for i in spec.inputs],
        "moodboard_snapshot": {
            "positive_file_ids": list(board.positive_file_ids),
            "negative_file_ids": list(board.negative_file_ids),
            "style_appendix": board.style_appendix,
        }
        if board
        else None,
        "prompt_original": spec.prompt.original,
        "prompt_strategy": spec.prompt.strategy or PromptStrategy.NONE,
        "prompt_enhanced": spec.prompt.enhanced or None,
        "prompt_enhance_ms": spec.prompt.enhance_ms,
        "priority": spec.priority,
        "product": spec.labels.product,
        "variant": spec.labels.variant,
        "destination": spec.labels.destination,
        "workspace_session_id": spec.labels.workspace_session_id,
        "template_name": spec.labels.template_name,
        "source_task_id": spec.labels.source_task_id,
        "pin_token": spec.pin_token,
        "batch_id": spec.batch_id or None,
        "variant_index": spec.variant_index or None,
        "retry_of": spec.retry_of or None,
        "folder_id": spec.folder_id or None,
        "moodboard_id": spec.moodboard_id or None,
        "shots": list(spec.shots) or None,
        "shots_of": spec.shots_of or None,
        "is_admitted": admitted,
        "state": JobState.QUEUED,
        "last_sequence": 2 if admitted else 1,
        "images_done": 0,
        "images_failed": 0,
        "attempts": 0,
        "max_attempts": max_attempts,
        "lost_workers": 0,
        "dispatch_no": 1 if admitted else 0,
        "rings": 0,
        "fence": 0,
        "archive_state": ArchiveState.NONE,
        "archive_rings": 0,
    }
