"""Moodboards: kept by teams; a job takes a snapshot of one and never looks at it again."""

from __future__ import annotations

from collections.abc import Callable

from libs.common import request_keys
from libs.common.db import Tx
from libs.common.errors import AbortedError, NotFoundError, ResourceExhaustedError
from libs.common.request_keys import RequestKey
from services.assets import tables
from services.assets.domain import Moodboard, MoodboardContent
from services.assets.store import moodboards, teams
from services.assets.usecases.deps import Deps
from services.assets.usecases.referencing import hold_images


async def create_moodboard(
    deps: Deps, key: RequestKey, content: Callable[[], MoodboardContent]
) -> Moodboard:
    """A new moodboard, or the one this request_id made before.

    Args:
        deps: shared means.
        key: the caller's key; its request_id may be empty.
        content: checks what it is to hold; called only when the key is new.

    Raises:
        InvalidArgumentError: what is wrong with the content; BAD_IMAGE_REFERENCE.
        AlreadyExistsError: IDEMPOTENCY_KEY_REUSED.
        NotFoundError: this request_id's moodboard was deleted since.
        ResourceExhaustedError: TOO_MANY_MOODBOARDS.
    """
    team = key.team
    async with deps.db.transaction(team) as tx:
        await teams.lock(tx, team)
        kept = await request_keys.find_same(tx, tables.idempotency_keys, key)
        if kept is not None:
            return await _found(tx, team, kept.resource_id)
        new = content()
        await hold_images(tx, team, _named(new))
        if await moodboards.count(tx, team) >= deps.figures.moodboards_per_team:
            raise ResourceExhaustedError(
                "the team keeps as many moodboards as it may",
                reason="TOO_MANY_MOODBOARDS",
                quota_subject="moodboards",
            )
        moodboard = await moodboards.add(tx, team, new)
        if key.request_id:
            await request_keys.add(tx, tables.idempotency_keys, [(key, moodboard.id)])
    return moodboard


async def get_moodboard(deps: Deps, team: str, moodboard_id: int) -> Moodboard:
    """A team's moodboard; NotFoundError."""
    async with deps.db.read(team) as tx:
        return await _found(tx, team, moodboard_id)


async def update_moodboard(
    deps: Deps, team: str, moodboard_id: int, content: MoodboardContent, revision: int
) -> Moodboard:
    """Replaces what a moodboard holds.

    Args:
        deps: shared means.
        team: whose.
        moodboard_id: which.
        content: what it is to hold, whole.
        revision: what the change is based on; 0 for whatever there is.

    Raises:
        NotFoundError: unknown, or another team's.
        AbortedError: STALE_REVISION.
        InvalidArgumentError: BAD_IMAGE_REFERENCE.
    """
    async with deps.db.transaction(team) as tx:
        current = await moodboards.lock(tx, team, moodboard_id)
        if current is None:
            raise NotFoundError("moodboard")
        if revision not in (0, current):
            raise AbortedError(
                "the moodboard was changed since; read it again", reason="STALE_REVISION"
            )
        await hold_images(tx, team, _named(content))
        return await moodboards.replace(tx, team, moodboard_id, content)


async def list_moodboards(
    deps: Deps, team: str, *, before_id: int | None, limit: int
) -> list[Moodboard]:
    """A page of a team's moodboards, newest first."""
    async with deps.db.read(team) as tx:
        return await moodboards.page(tx, team, before_id=before_id, limit=limit)


async def delete_moodboard(deps: Deps, team: str, moodboard_id: int) -> None:
    """Deletes a moodboard; NotFoundError."""
    async with deps.db.transaction(team) as tx:
        if not await moodboards.delete(tx, team, moodboard_id):
            raise NotFoundError("moodboard")


async def _found(tx: Tx, team: str, moodboard_id: int) -> Moodboard:
    moodboard = await moodboards.find(tx, team, moodboard_id)
    if moodboard is None:
        raise NotFoundError("moodboard")
    return moodboard


def _named(content: MoodboardContent) -> dict[str, int]:
    """Its files by the fields that name them."""
    named = {
        f"content.{field}[{position}]": file_id
        for field, file_ids in (
            ("positive_file_ids", content.positive_file_ids),
            ("negative_file_ids", content.negative_file_ids),
        )
        for position, file_id in enumerate(file_ids)
    }
    if content.background_file_id:
        named["content.background_file_id"] = content.background_file_id
    if content.model_file_id:
        named["content.model_file_id"] = content.model_file_id
    return named
