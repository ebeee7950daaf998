"""Variants, and the images that could stand for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from libs.common.db import Tx
from services.assets import tables
from services.assets.domain import File, NewVariant, Variant
from services.assets.store.files import file_of

_variants = tables.variants
_files = tables.files

_LIVE = _files.c.deleted_at.is_(None)
# The conditions of the indexes files_by_variant and files_uploads, word for word: as parameters
# they would not match.
_GENERATED = sa.text("files.kind = 'GENERATED' AND files.recorded_at IS NOT NULL")
_UPLOADED = sa.text("files.kind = 'UPLOAD'")


async def put(tx: Tx, team: str, new: Sequence[NewVariant]) -> dict[str, Variant]:
    """The variants by id, made or replaced in one statement; their ids differ."""
    rows = [
        {
            "team": team,
            "variant_id": variant.id,
            "product": variant.product,
            "title": variant.title,
            "image_file_id": variant.image_file_id or None,
            "updated_at": tx.now(),
        }
        # Always in the same order: two calls never wait for each other's rows.
        for variant in sorted(new, key=lambda variant: variant.id)
    ]
    insert = tx.insert(_variants).values(rows)
    changed = ("product", "title", "image_file_id", "updated_at")
    upsert = insert.on_conflict_do_update(
        index_elements=[_variants.c.team, _variants.c.variant_id],
        set_={column: insert.excluded[column] for column in changed},
    )
    kept = await tx.execute(upsert.returning(_variants))
    return {row.variant_id: _variant(row) for row in kept}


async def count(tx: Tx, team: str) -> int:
    """How many the team keeps."""
    query = sa.select(sa.func.count()).where(_variants.c.team == team)
    return int(await tx.scalar(query))


async def known(tx: Tx, team: str, variant_ids: Collection[str]) -> int:
    """How many of these ids the team keeps already."""
    query = sa.select(sa.func.count()).where(
        _variants.c.team == team, _variants.c.variant_id.in_(variant_ids)
    )
    return int(await tx.scalar(query))


async def find(tx: Tx, team: str, variant_ids: Collection[str]) -> dict[str, Variant]:
    """Those of the ids that the team keeps."""
    rows = await tx.execute(_select(team).where(_variants.c.variant_id.in_(variant_ids)))
    return {row.variant_id: _variant(row) for row in rows}


async def page(
    tx: Tx, team: str, product: str, *, after_id: str | None, limit: int
) -> list[Variant]:
    """The team's variants, of this product (empty: all), by id, after `after_id`."""
    query = _select(team)
    if product:
        query = query.where(_variants.c.product == product)
    if after_id is not None:
        query = query.where(_variants.c.variant_id > after_id)
    rows = await tx.execute(query.order_by(_variants.c.variant_id).limit(limit))
    return [_variant(row) for row in rows]


async def newest_generated(
    tx: Tx, team: str, variant_ids: Collection[str], most: int
) -> dict[str, list[File]]:
    """For each variant the newest visible images made for it, newest first, in one statement."""
    if tx.on_postgres:
        chosen = _few_of_each(team, variant_ids, most)
    else:
        chosen = _ranked(team, variant_ids, most)
    by_variant: dict[str, list[File]] = {}
    for row in await tx.execute(chosen):
        by_variant.setdefault(row.variant, []).append(file_of(row))
    return by_variant


async def newest_uploads(tx: Tx, team: str, most: int) -> list[File]:
    """The team's newest uploads, newest first."""
    rows = await tx.execute(
        sa.select(_files)
        .where(_files.c.team == team, _UPLOADED, _LIVE)
        .order_by(_files.c.id.desc())
        .limit(most)
    )
    return [file_of(row) for row in rows]


def _few_of_each(team: str, variant_ids: Collection[str], most: int) -> sa.Select[Any]:
    """PostgreSQL: goes once into the index per variant, and reads no more rows than it gives."""
    ids = sa.literal(list(variant_ids), sa.ARRAY(sa.Text))
    asked = sa.func.unnest(ids).table_valued("variant").render_derived()
    newest = (
        sa.select(_files)
        .where(_made_for(team), _files.c.variant == asked.c.variant)
        .order_by(_files.c.id.desc())
        .limit(most)
        .lateral()
    )
    return sa.select(newest).select_from(asked).join(newest, sa.true()).order_by(newest.c.id.desc())


def _ranked(team: str, variant_ids: Collection[str], most: int) -> sa.Select[Any]:
    """SQLite has no lateral join: ranks what the index has of these variants, then reads rows."""
    rank = sa.func.row_number().over(partition_by=_files.c.variant, order_by=_files.c.id.desc())
    ranked = (
        sa.select(_files.c.id, rank.label("rank"))
        .where(_made_for(team), _files.c.variant.in_(variant_ids))
        .subquery()
    )
    few = sa.select(ranked.c.id).where(ranked.c.rank <= most)
    return sa.select(_files).where(_files.c.id.in_(few)).order_by(_files.c.id.desc())


def _made_for(team: str) -> sa.ColumnElement[bool]:
    return sa.and_(_files.c.team == team, _GENERATED, _LIVE)


def _select(team: str) -> sa.Select[Any]:
    """Variants with their images as they are: one that was deleted is none."""
    image = sa.and_(_files.c.id == _variants.c.image_file_id, _files.c.team == team, _LIVE)
    return (
        sa.select(
            _variants.c.variant_id,
            _variants.c.product,
            _variants.c.title,
            _files.c.id.label("image_file_id"),
            _variants.c.updated_at,
        )
        .join(_files, image, isouter=True)
        .where(_variants.c.team == team)
    )


def _variant(row: sa.Row[Any]) -> Variant:
    return Variant(
        id=row.variant_id,
        product=row.product,
        title=row.title,
        image_file_id=row.image_file_id or 0,
        updated_at=row.updated_at,
    )
