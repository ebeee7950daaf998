"""What enqueue keeps, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from libs.common.clock import Clock
from libs.common.db import Database
from libs.common.retention import DAY_SECONDS, PAUSE_SECONDS, Retention, Rule
from services.enqueue.store import retention

log = structlog.get_logger()

# In one transaction; each has its images and events with it.
JOBS_PER_STEP = 20
EVENT_JOBS_PER_STEP = 10


@dataclass(frozen=True, slots=True)
class Ages:
    """After how many days things go; 0: never."""

    jobs_days: float
    events_days: float
    keys_days: float
    audit_days: float


def retention_of(db: Database, clock: Clock, ages: Ages) -> Retention:
    """The rules for all but events."""
    rules = [
        # Keys before what they name: a clean-up that dies half way leaves no key of nothing.
        Rule("keys", ages.keys_days, retention.remove_keys),
        Rule("jobs", ages.jobs_days, retention.remove_jobs, JOBS_PER_STEP),
        Rule("batches", ages.jobs_days, retention.remove_batches),
        Rule("audit", ages.audit_days, retention.remove_audit),
    ]
    return Retention(db, clock, rules)


class EventRetention:
    """Removes the events of jobs that ended long ago; the jobs stay, and their last number too.

    Events have no index by age: jobs are gone through by id, some per round, and the next round
    goes on behind them.

    Args:
        db: enqueue's.
        clock: for the pauses.
        days: the age, by the end of the job; 0: never.
        jobs: looked at in one round.
    """

    def __init__(
        self, db: Database, clock: Clock, days: float, *, jobs: int = EVENT_JOBS_PER_STEP
    ) -> None:
        self._db = db
        self._clock = clock
        self._days = days
        self._jobs = jobs
        self._after_job = 0

    async def round(self) -> bool:
        """Looks at some jobs; True when there may be more to do."""
        if not self._days:
            return False
        async with self._db.duty() as tx:
            step = await retention.remove_events(
                tx, self._days * DAY_SECONDS, self._after_job, self._jobs
            )
        self._after_job = step.last_job or 0
        if step.removed:
            log.info("retention.removed", what="events", rows=step.removed)
        if step.last_job is None:
            return False
        await self._clock.sleep(PAUSE_SECONDS)
        return True
