"""All jobs of a team, watched in the order of commits."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common.db import Database
from services.enqueue.domain import Position, bad_cursor
from services.enqueue.store import events
from services.enqueue.store.events import Horizon, Stretch
from services.enqueue.watch.sources import PAGE, News, Scope, Start

TeamNews = News[Position, None]


def begin(after: Position | None, horizon: Horizon) -> Position:
    """Where a watch of many jobs begins: from now on, unless it says from where; BAD_CURSOR."""
    if after is not None and after > horizon.end:
        raise bad_cursor("is past the last event")
    return horizon.sure if after is None else after


class TeamSource:
    """Reads the events of teams; there is no whole, and no end.

    Args:
        db: enqueue's database.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def start(self, scope: Scope, after: Position | None) -> Start[Position]:
        """The cursors; InvalidArgumentError: BAD_CURSOR."""
        async with self._db.read(scope.team) as tx:
            horizon = await events.horizon(tx, scope.team)
        return Start(begin(after, horizon), horizon.sure, greeting=True)

    async def page(self, scope: Scope, after: Position) -> TeamNews:
        """The team's next events."""
        async with self._db.read(scope.team) as tx:
            found = await events.after_position(tx, after, PAGE, team=scope.team)
        return _news(found, after)

    async def news(self, cursors: Mapping[Scope, Position]) -> dict[Scope, TeamNews]:
        """Each team's news, in one transaction."""
        news = {}
        async with self._db.read_all() as tx:
            for scope, cursor in cursors.items():
                found = await events.after_position(tx, cursor, PAGE, team=scope.team)
                news[scope] = _news(found, cursor)
        return news

    async def behind(self, cursors: Mapping[Scope, Position]) -> set[Scope]:
        """Teams with newer events, in one query."""
        scopes = {scope.team: scope for scope in cursors}
        async with self._db.read_all() as tx:
            newest = await events.newest_of_teams(tx, list(scopes))
        return {
            scopes[team] for team, order in newest.items() if cursors[scopes[team]].before(order)
        }


def _news(found: Stretch, after: Position) -> TeamNews:
    here = [(event.position, event) for event in found.events]
    end = here[-1][0] if here else after
    return News(here, None, end, more=found.more, held_back=found.held_back)
