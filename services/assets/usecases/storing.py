"""How much a team may store: set aside before an upload's bytes, counted with its file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from libs.common.db import Tx
from libs.common.errors import ContentshopError, ResourceExhaustedError
from services.assets.store import storage
from services.assets.store.storage import Storage
from services.assets.usecases.deps import Deps

log = structlog.get_logger()


@dataclass(slots=True)
class Reservation:
    """Bytes set aside for one upload.

    Attributes:
        team: whose.
        token: names it.
        settled: its file is committed.
    """

    team: str
    token: str
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Used:
    """What a team stores, what is being uploaded included, and may store; 0: no limit."""

    stored_bytes: int
    max_stored_bytes: int


@asynccontextmanager
async def reserved(deps: Deps, team: str, size_bytes: int) -> AsyncIterator[Reservation]:
    """Sets bytes aside for the block, and gives back what `settle` did not make a file's.

    Where the process dies they run out by themselves.

    Raises:
        ResourceExhaustedError: STORAGE_QUOTA.
    """
    reservation = Reservation(team, deps.ids.token())
    async with deps.db.transaction(team) as tx:
        await set_aside(tx, deps, reservation, size_bytes)
    deps.crash.here("A6")
    try:
        yield reservation
    finally:
        if not reservation.settled:
            await _give_back(deps, reservation)


async def set_aside(tx: Tx, deps: Deps, reservation: Reservation, size_bytes: int) -> None:
    """Sets bytes aside until they are settled or run out; ResourceExhaustedError STORAGE_QUOTA."""
    team = reservation.team
    row = await storage.lock(tx, team)
    # In a statement of its own, begun after the lock was had: it sees all who had it before.
    await _refuse_beyond(tx, deps, team, row, size_bytes)
    seconds = deps.figures.reservation_seconds
    await storage.reserve(tx, team, reservation.token, size_bytes, seconds)


async def settle(tx: Tx, deps: Deps, reservation: Reservation, size_bytes: int) -> None:
    """Takes a file's bytes from its reservation, in the transaction that has inserted its row.

    Where it is larger than was reserved (turning an image upright can do that), or the
    reservation has run out, the team's limit is asked again.

    Raises:
        ResourceExhaustedError: STORAGE_QUOTA.
    """
    team = reservation.team
    held = await storage.release(tx, team, reservation.token)
    if size_bytes > held:
        await _refuse_beyond(tx, deps, team, await storage.find(tx, team), 0)

    def settled() -> None:
        reservation.settled = True

    tx.on_commit(settled)


async def get_storage(deps: Deps, team: str) -> Used:
    """What the team stores and may store."""
    async with deps.db.read(team) as tx:
        row = await storage.find(tx, team)
        reserved_bytes = await storage.reserved_bytes(tx, team)
    return Used(row.stored_bytes + reserved_bytes, _limit(deps, row))


async def set_team_storage(
    deps: Deps, team: str, limits: Mapping[str, int | None], *, actor: str
) -> Storage:
    """Sets a team's `max_stored_bytes` and `calls_per_minute`; None: the default again."""
    async with deps.db.transaction(team) as tx:
        row = await storage.set_limits(tx, team, limits)
    log.info("storage.limits_set", team=team, actor=actor, **limits)
    return row


async def _refuse_beyond(tx: Tx, deps: Deps, team: str, row: Storage, more_bytes: int) -> None:
    limit = _limit(deps, row)
    if not limit:
        return
    used = row.stored_bytes + await storage.reserved_bytes(tx, team)
    if used + more_bytes > limit:
        raise ResourceExhaustedError(
            "the team's files would take more bytes than it may store",
            reason="STORAGE_QUOTA",
            metadata={"storedBytes": str(used), "maxStoredBytes": str(limit)},
            quota_subject="stored bytes of the team",
        )


def _limit(deps: Deps, row: Storage) -> int:
    return row.max_stored_bytes or deps.figures.max_stored_bytes


async def _give_back(deps: Deps, reservation: Reservation) -> None:
    """Ends a reservation, in a task of its own: gRPC cancels the call of a lost client twice."""
    await asyncio.shield(deps.tasks.spawn(_release(deps, reservation), name="reservation.release"))


async def _release(deps: Deps, reservation: Reservation) -> None:
    try:
        async with deps.db.transaction(reservation.team) as tx:
            await storage.release(tx, reservation.team, reservation.token)
    except ContentshopError as error:
        log.info("reservation.left_to_run_out", reason=error.reason)
