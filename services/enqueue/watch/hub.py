"""The hub: all watchers of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from libs.common.db import Database
from libs.common.ids import Ids
from libs.common.lifecycle import Duty
from services.enqueue.batch import Batch
from services.enqueue.domain import Job, Position
from services.enqueue.wakeups import WakeUp
from services.enqueue.watch.batches import BatchSource
from services.enqueue.watch.jobs import JobSource
from services.enqueue.watch.openings import Openings
from services.enqueue.watch.sources import Scope
from services.enqueue.watch.teams import TeamSource
from services.enqueue.watch.topics import Topics
from services.enqueue.watch.updates import Pulse, Update


class WatchHub:
    """All watchers of this process. Jobs, batches and teams are read apart: none waits for others.

    Every watch raises at its first step where it may not begin (NotFoundError,
    InvalidArgumentError), and UnavailableError when the server is going away: come back with the
    cursor.

    Args:
        db: read once per wake-up and kind.
        heartbeat_seconds: silence before a heartbeat.
        sweep_seconds: floor for lost wake-ups.
        openings: watches that read at once as they open; fewer than the pool has connections.
        ids: jitter.
    """

    def __init__(
        self,
        db: Database,
        *,
        heartbeat_seconds: float,
        sweep_seconds: float,
        openings: int,
        ids: Ids,
    ) -> None:
        self._pulse = Pulse(heartbeat_seconds)
        turns = Openings(openings)
        self._jobs = Topics("jobs", JobSource(db), self._pulse, turns, ids)
        self._batches = Topics("batches", BatchSource(db), self._pulse, turns, ids)
        self._teams = Topics("teams", TeamSource(db), self._pulse, turns, ids)
        self._kinds: tuple[Topics[Any, Any], ...] = (self._jobs, self._batches, self._teams)
        self._sweeper = Duty("watch.sweep", self._sweep, floor_seconds=sweep_seconds, ids=ids)

    async def start(self) -> None:
        """Begins to read for watchers."""
        for kind in self._kinds:
            await kind.start()
        await self._sweeper.start()

    async def stop(self) -> None:
        """Sends the watchers away, and ends."""
        self.send_away()
        self._pulse.stop()
        await self._sweeper.stop()
        for kind in self._kinds:
            await kind.stop()

    def send_away(self) -> None:
        """Ends every watch with UNAVAILABLE: another replica takes them, with their cursors."""
        for kind in self._kinds:
            kind.send_away()

    @property
    def watchers(self) -> int:
        """How many watch here."""
        return sum(kind.watchers for kind in self._kinds)

    def heard(self, wake_up: WakeUp) -> None:
        """A wake-up came; only what is watched here matters."""
        if wake_up.all_jobs:
            self._sweeper.wake()
        for job in wake_up.jobs:
            self._jobs.heard(Scope(job.team, job.job_id))
            self._teams.heard(Scope(job.team))
            if job.batch_id:
                self._batches.heard(Scope(job.team, job.batch_id))

    def watch_job(self, team: str, job_id: int, after: int) -> AsyncIterator[Update[int, Job]]:
        """The job's updates behind the cursor, the last of them final."""
        return self._jobs.watch(Scope(team, job_id), after)

    def watch_batch(
        self, team: str, batch_id: int, after: Position | None
    ) -> AsyncIterator[Update[Position, Batch]]:
        """The updates of a batch's jobs behind the cursor, or all; the last of them final."""
        return self._batches.watch(Scope(team, batch_id), after)

    def watch_team(
        self, team: str, after: Position | None
    ) -> AsyncIterator[Update[Position, None]]:
        """The updates of all the team's jobs behind the cursor, or from now on; without end."""
        return self._teams.watch(Scope(team), after)

    async def _sweep(self) -> bool:
        """The floor under wake-ups."""
        for kind in self._kinds:
            await kind.sweep()
        return False
