"""The governor's state of models: one row per model that was ever limited or reported bad."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.governor import Circuit, ModelState, new_model

_models = tables.models


async def find(tx: Tx, names: Collection[str]) -> tuple[dict[str, ModelState], datetime]:
    """The models there are of these names, and the time. Takes no locks."""
    now: datetime = await tx.scalar(sa.select(tx.now()))
    rows = await tx.execute(sa.select(_models).where(_models.c.model.in_(names)))
    return {row.model: _state_of(row) for row in rows}, now


async def every(tx: Tx) -> list[ModelState]:
    """All models, by name; as many as workers ever named, so a handful."""
    return [
        _state_of(row) for row in await tx.execute(sa.select(_models).order_by(_models.c.model))
    ]


async def lock(tx: Tx, names: Collection[str]) -> tuple[dict[str, ModelState], datetime]:
    """The rows of these models, locked in one order for everybody, made where missing; the time.

    The time is read after the locks are held: a state is never older than it.
    """
    rows = await _locked(tx, names)
    missing = sorted(set(names) - rows.keys())
    if missing:
        now: datetime = await tx.scalar(sa.select(tx.now()))
        new = [_row_of(new_model(name, now)) for name in missing]
        await tx.execute(tx.insert(_models).values(new).on_conflict_do_nothing())
        rows = await _locked(tx, names)
    now = await tx.scalar(sa.select(tx.now()))
    return rows, now


async def save(tx: Tx, states: Collection[ModelState]) -> None:
    """Writes locked rows."""
    for state in states:  # a handful: those that workers call just now
        row = _row_of(state)
        await tx.execute(
            sa.update(_models).where(_models.c.model == row.pop("model")).values(**row)
        )


async def _locked(tx: Tx, names: Collection[str]) -> dict[str, ModelState]:
    rows = await tx.execute(
        sa.select(_models)
        .where(_models.c.model.in_(names))
        .order_by(_models.c.model)
        .with_for_update(key_share=True)
    )
    return {row.model: _state_of(row) for row in rows}


def _state_of(row: sa.Row[Any]) -> ModelState:
    return ModelState(
        model=row.model,
        limit=row.calls_per_minute_limit,
        rate=row.calls_per_minute,
        tokens=row.tokens,
        refilled_at=row.refilled_at,
        blocked_until=row.blocked_until,
        slowed_at=row.slowed_at,
        failures=row.failures,
        circuit=Circuit(row.circuit),
        probe_until=row.probe_until,
    )


def _row_of(state: ModelState) -> dict[str, Any]:
    row = asdict(state)
    row["calls_per_minute_limit"] = row.pop("limit")
    row["calls_per_minute"] = row.pop("rate")
    return row
