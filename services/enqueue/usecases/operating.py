"""What operators ask and set: the queue, figures of ended jobs, teams' limits, lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from libs.common import outbox
from libs.common.broker import LANES
from libs.common.db import Database
from services.enqueue import governor, tables
from services.enqueue.governor import ModelState
from services.enqueue.store import admission, audit, explaining, figures, lanes, models, teams
from services.enqueue.store.explaining import LaneWorkers
from services.enqueue.store.figures import LaneCounts, TeamCounts, TypeFigures, Window
from services.enqueue.store.teams import TeamLimits
from services.enqueue.usecases.deps import Deps, admit_more
from services.enqueue.usecases.explaining import HEARD_WITHIN_LEASES

MAX_TEAMS = 100
DEFAULT_WINDOW = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane as an operator sees it."""

    lane: str
    counts: LaneCounts
    workers: LaneWorkers
    paused: bool


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What waits and runs, at `now`; lanes and models by name."""

    now: datetime
    lanes: tuple[LaneView, ...]
    teams: tuple[TeamCounts, ...]
    models: tuple[ModelState, ...]
    outbox: int


async def queue_stats(deps: Deps) -> QueueStats:
    """The queue just now, by a fixed number of queries."""
    heard_within = deps.limits.lease_seconds * HEARD_WITHIN_LEASES
    async with deps.db.read_all() as tx:
        now = await explaining.time_now(tx)
        counts = await figures.lane_counts(tx)
        paused = await lanes.paused(tx)
        workers = await explaining.workers_by_lane(tx, heard_within)
        known = await models.every(tx)
        busiest = await figures.team_counts(tx, MAX_TEAMS)
        unsent = await outbox.count(tx, tables.outbox)
    views = [
        LaneView(
            lane,
            counts.get(lane, LaneCounts()),
            workers.get(lane, LaneWorkers()),
            paused=lane in paused,
        )
        for lane in sorted({*LANES, *counts})
    ]
    states = tuple(governor.passed(state, now) for state in known)
    return QueueStats(now, tuple(views), tuple(busiest), states, unsent)


async def job_metrics(
    deps: Deps, start: datetime | None, end: datetime | None, team: str
) -> list[TypeFigures]:
    """How jobs that ended from start (24 hours ago) on and before end (now) went, by type."""
    async with deps.db.read_all() as tx:
        now = await explaining.time_now(tx)
        # Not back from `end`: it may stand in year 1.
        window = Window(start or now - DEFAULT_WINDOW, end or now, team)
        return await figures.type_figures(tx, window)


async def set_team_limits(
    deps: Deps, team: str, changes: Mapping[str, int], actor: str
) -> TeamLimits:
    """Sets a team's limits, 0 for the default; places that became free are given at once.

    Args:
        deps: shared means.
        team: need not have made a job yet.
        changes: `max_live_jobs`, `calls_per_minute`; what is not named stays.
        actor: for the audit.

    Returns:
        The limits as stored.
    """
    async with deps.db.duty() as tx:
        await admission.ensure_teams(tx, [team])
        before = await teams.lock_limits(tx, team)
        if not changes:
            return before
        after = await teams.set_limits(tx, team, {k: v or None for k, v in changes.items()})
        details = {"old": asdict(before), "new": asdict(after)}
        await audit.add(tx, team, actor, "SET_TEAM_LIMITS", details=details)
        await admit_more(tx, deps, team, after.max_live_jobs)
    return after


async def pause_lane(deps: Deps, lane: str, reason: str, actor: str) -> None:
    """Nobody claims further jobs of the lane."""
    async with deps.db.duty() as tx:
        await lanes.pause(tx, lane, reason)
        details = {"lane": lane, "reason": reason}
        await audit.add(tx, "", actor, "PAUSE_LANE", details=details)


async def resume_lane(deps: Deps, lane: str, actor: str, wake_sweep: Callable[[], None]) -> None:
    """Jobs of the lane are claimed again; its doorbells are rung at once."""
    async with deps.db.duty() as tx:
        if await lanes.resume(tx, lane):
            await audit.add(tx, "", actor, "RESUME_LANE", details={"lane": lane})
            tx.on_commit(wake_sweep)


class TeamRates:
    """Each team's calls per minute: its own, or the service's default.

    Args:
        db: where the teams' own are.
        default: calls per minute; 0: no limit.
    """

    def __init__(self, db: Database, default: int) -> None:
        self._db = db
        self._default = default
        self._own: dict[str, int] = {}

    def of(self, team: str) -> int:
        """A team's calls per minute, as of the last look; 0: no limit."""
        return self._own.get(team, self._default)

    def set(self, team: str, calls_per_minute: int | None) -> int:
        """A team's rate has just been set here; what it is now."""
        if calls_per_minute is None:
            self._own.pop(team, None)
        else:
            self._own[team] = calls_per_minute
        return self.of(team)

    async def refresh(self) -> bool:
        """Reads what other processes have set; the work of a duty."""
        async with self._db.read_all() as tx:
            self._own = await teams.calls_per_minute(tx)
        return False
