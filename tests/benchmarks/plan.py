"""What a run is: full or quick; and waiting for a fleet to be at rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from tests.benchmarks.houses import BenchFleet
from tests.support.eventually import eventually
from tests.support.fleet import Servers

T = TypeVar("T")

SETTLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Bench:
    """One run.

    Attributes:
        servers: what its fleets live on.
        quick: fewer rounds, shorter, smaller.
    """

    servers: Servers
    quick: bool

    def pick(self, full: T, quick: T) -> T:
        """The one or the other."""
        return quick if self.quick else full


async def settled(house: BenchFleet) -> None:
    """Waits until enqueue has nothing more to publish, so that the next turn is alone."""
    await eventually(
        lambda: house.sql("enqueue", "SELECT count(*) FROM outbox") == [(0,)],
        timeout_seconds=SETTLE_SECONDS,
        what="the outbox is empty",
    )


async def all_ended(house: BenchFleet, *, timeout_seconds: float, archives: bool = True) -> None:
    """Waits until every job has ended and, if wanted, every zip is there and told of."""
    pending = "state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED')"
    if archives:
        pending += " OR archive_state = 'PENDING'"
    query = f"SELECT count(*) FROM jobs WHERE {pending}"  # noqa: S608 - of the text above alone
    await eventually(
        lambda: house.sql("enqueue", query) == [(0,)],
        timeout_seconds=timeout_seconds,
        what="every job has ended",
    )
