"""How many calls a team may make: the service's number, or its own."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common.db import Database
from services.assets.store import storage


class CallLimits:
    """Calls per minute by team, as the database last said; `refresh` asks it again.

    Args:
        default: calls per minute of teams without a number of their own; 0: no limit.
    """

    def __init__(self, default: int) -> None:
        self.default = default
        self._own: Mapping[str, int] = {}

    def of(self, team: str) -> int:
        """Calls per minute of a team; 0: no limit."""
        return self._own.get(team, self.default)

    async def refresh(self, db: Database) -> None:
        """Reads the teams that have a number of their own."""
        async with db.read_all() as tx:
            self._own = await storage.calls_per_minute(tx)
