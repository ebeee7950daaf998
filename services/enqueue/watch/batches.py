"""The jobs of a batch, watched in the order of commits."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common.db import Database, Tx
from libs.common.errors import NotFoundError
from services.enqueue.batch import Batch
from services.enqueue.domain import Position
from services.enqueue.store import batches, events
from services.enqueue.watch.sources import PAGE, News, Scope, Start
from services.enqueue.watch.teams import begin

BatchNews = News[Position, Batch]
FIRST = Position(0, 0, 0)


class BatchSource:
    """Reads batches. Events and batch are of one moment: a batch that is final has shown its end.

    Args:
        db: enqueue's database.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def start(self, scope: Scope, after: Position | None) -> Start[Position]:
        """The cursors; NotFoundError, InvalidArgumentError: BAD_CURSOR."""
        async with self._db.read(scope.team) as tx:
            if not await batches.exists(tx, scope.id, scope.team):
                raise NotFoundError("batch")
            horizon = await events.horizon(tx, scope.team)
        return Start(begin(after or FIRST, horizon), horizon.sure)

    async def page(self, scope: Scope, after: Position) -> BatchNews:
        """The batch's next events."""
        async with self._db.snapshot(scope.team) as tx:
            news = await _news(tx, scope, after)
        if news is None:
            raise NotFoundError("batch")
        return news

    async def news(self, cursors: Mapping[Scope, Position]) -> dict[Scope, BatchNews]:
        """Each batch's news, in one transaction."""
        found = {}
        async with self._db.snapshot_all() as tx:
            for scope, cursor in cursors.items():
                if (news := await _news(tx, scope, cursor)) is not None:
                    found[scope] = news
        return found

    async def behind(self, cursors: Mapping[Scope, Position]) -> set[Scope]:
        """Batches with newer events, in one query."""
        scopes = {scope.id: scope for scope in cursors}
        async with self._db.read_all() as tx:
            newest = await events.newest_of_batches(tx, list(scopes))
        return {
            scopes[batch_id]
            for batch_id, order in newest.items()
            if cursors[scopes[batch_id]].before(order)
        }


async def _news(tx: Tx, scope: Scope, after: Position) -> BatchNews | None:
    found = await events.after_position(tx, after, PAGE, team=scope.team, batch_id=scope.id)
    batch = await batches.find(tx, scope.id, scope.team)
    if batch is None:
        return None
    all_shown = not found.more and not found.held_back
    final = all_shown and batch.ended and not await batches.unsettled(tx, scope.id, scope.team)
    here = [(event.position, event) for event in found.events]
    end = here[-1][0] if here else after
    return News(here, batch, end, more=found.more, held_back=found.held_back, final=final)
