"""Faults planted on purpose, one at a time: the simulation must find each within some seeds.

They replace one function of enqueue for the life of a process; `--plant NAME` runs with one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from libs.common import outbox, request_keys
from libs.common.errors import LeaseLostError
from services.enqueue.domain import JobState
from services.enqueue.store import admission, images, jobs, leases, ledger
from services.enqueue.usecases import executing
from tests.simulation import world
from tests.simulation.broker import PlayedBroker


def no_fence() -> None:
    """A worker's write is taken from whoever once had the job."""

    def check_held(job: Any, held: Any) -> None:
        del held
        if job is None or job.state is not JobState.RUNNING:
            raise LeaseLostError("the lease of this claim is lost")

    executing._check_held = check_held


def no_team_lock() -> None:
    """Places are counted before the lock: what others took since is not seen."""
    seen: dict[str, admission.Places] = {}
    real = admission.places

    async def places(tx: Any, limits: Mapping[str, int | None], default_limit: int) -> Any:
        before = {team: seen[team] for team in limits if team in seen}
        seen.update(await real(tx, limits, default_limit))
        return {**{team: seen[team] for team in limits if team in seen}, **before}

    admission.places = places


def lease_not_looked_at_again() -> None:
    """The reaper takes a job though its lease was renewed, or another claim's, since it looked."""

    async def still_expired(tx: Any, lease: Any) -> bool:
        del tx, lease
        return True

    leases.still_expired = still_expired


def refund_without_guard() -> None:
    """Every ending gives the whole hold back, whatever was captured."""
    real = ledger.settle

    async def settle(tx: Any, ended: Any) -> None:
        await real(tx, ended)
        await tx.execute(
            ledger._accounts.update()
            .where(ledger._accounts.c.team == ended[0].spec.team)
            .where(ledger._accounts.c.captured > 0)
            .values(
                captured=ledger._accounts.c.captured - 1,
                available=ledger._accounts.c.available + 1,
            )
        )

    ledger.settle = settle


def request_id_forgotten() -> None:
    """A request_id is not kept: its repeat makes another job."""

    async def add(tx: Any, table: Any, keys: Any) -> None:
        del tx, table, keys

    request_keys.add = add


def ack_before_commit() -> None:
    """The relay forgets its rows first, and publishes then."""
    real = outbox.Relay._take

    async def take(self: outbox.Relay) -> Any:
        rows = await real(self)
        await self._settle([row.id for row in rows], [])
        return rows

    outbox.Relay._take = take  # type: ignore[method-assign]


def publish_before_commit() -> None:
    """What a transaction has to say goes out while it is open."""

    async def add(tx: Any, table: Any, messages: Sequence[Any]) -> None:
        del tx, table
        await PlayedBroker.of_this_world.publish(messages)

    outbox.add = add


def no_unique_key_on_captures() -> None:
    """Each telling of an image is charged: neither its slot nor the ledger's key is looked at."""
    world.TEMPLATE_CHANGES.append("DROP INDEX credit_entries_capture")
    real = images.settle

    async def settle(tx: Any, job_id: int, index: int, values: Any) -> Any:
        if (image := await real(tx, job_id, index, values)) is None:
            job = await jobs.find(tx, job_id)
            if job is not None and job.hold is not None:
                await ledger.capture(tx, job, index)
        return image

    images.settle = settle


PLANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        no_fence,
        no_team_lock,
        lease_not_looked_at_again,
        refund_without_guard,
        request_id_forgotten,
        ack_before_commit,
        publish_before_commit,
        no_unique_key_on_captures,
    )
}
