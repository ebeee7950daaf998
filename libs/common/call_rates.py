"""How many calls a team may make per minute, in one process: a token bucket for each team.

A team that was quiet may use a minute's calls at once; after that they come back evenly. Nothing
is shared between processes, so a team gets its rate from each: the limit keeps one team from
taking a server over, it is no bill.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from libs.common.clock import Clock
from libs.common.errors import ResourceExhaustedError

MAX_TEAMS = 10_000
SECONDS_PER_MINUTE = 60.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class CallRates:
    """The buckets of all teams.

    Args:
        limit_of: a team → its calls per minute; 0: no limit. Asked at each call, so it must be
            quick, and may change its mind.
        clock: monotonic time.
        max_teams: buckets kept; past that the one used longest ago is forgotten, which fills it.
    """

    def __init__(
        self, limit_of: Callable[[str], int], clock: Clock, *, max_teams: int = MAX_TEAMS
    ) -> None:
        self._limit_of = limit_of
        self._clock = clock
        self._max_teams = max_teams
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        """Buckets kept just now."""
        return len(self._buckets)

    def take(self, team: str) -> None:
        """Counts one call of a team.

        Raises:
            ResourceExhaustedError: TOO_MANY_CALLS, with the time until the next is allowed.
        """
        limit = self._limit_of(team)
        if limit <= 0:
            self._buckets.pop(team, None)
            return
        bucket = self._filled(team, limit)
        if bucket.tokens < 1.0:
            raise ResourceExhaustedError(
                f"the team may make {limit} calls per minute",
                reason="TOO_MANY_CALLS",
                metadata={"callsPerMinute": str(limit)},
                retry_after_seconds=(1.0 - bucket.tokens) * SECONDS_PER_MINUTE / limit,
                quota_subject="calls per minute",
            )
        bucket.tokens -= 1.0

    def _filled(self, team: str, limit: int) -> _Bucket:
        now = self._clock.monotonic()
        bucket = self._buckets.get(team)
        if bucket is None:
            bucket = self._buckets[team] = _Bucket(float(limit), now)
            if len(self._buckets) > self._max_teams:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(team)
        earned = (now - bucket.filled_at) * limit / SECONDS_PER_MINUTE
        bucket.tokens = min(float(limit), bucket.tokens + earned)
        bucket.filled_at = now
        return bucket
