"""Old rows are removed in bounded steps: a short transaction, a pause, the next one.

A step that is interrupted removes nothing, and the next one begins where it did; two replicas
may do the same at once. Each rule is a store function of its service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from libs.common.clock import Clock
from libs.common.db import Database, Tx

log = structlog.get_logger()

DAY_SECONDS = 86_400.0
STEP_ROWS = 200
PAUSE_SECONDS = 0.05

Remove = Callable[[Tx, float, int], Awaitable[int]]
"""Removes rows older than so many seconds, at most so many; how many."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of one kind.

    Attributes:
        what: for logs.
        days: after which they go; 0: never.
        remove: one step.
        step_rows: at most in one step, so in one transaction.
    """

    what: str
    days: float
    remove: Remove
    step_rows: int = STEP_ROWS


class Retention:
    """The rules of one service, as the work of a duty.

    Args:
        db: whose rows.
        clock: for the pauses.
        rules: in this order.
        removed: called when something was.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        rules: Sequence[Rule],
        *,
        removed: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._rules = [rule for rule in rules if rule.days > 0]
        self._removed = removed

    async def round(self) -> bool:
        """One step of each rule; True when there may be more."""
        more = False
        for rule in self._rules:
            async with self._db.duty() as tx:
                rows = await rule.remove(tx, rule.days * DAY_SECONDS, rule.step_rows)
            if rows:
                log.info("retention.removed", what=rule.what, rows=rows)
                self._removed()
            more = more or rows >= rule.step_rows
        if more:
            await self._clock.sleep(PAUSE_SECONDS)
        return more
