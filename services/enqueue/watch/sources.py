"""What can be watched, and how it is read: a job by its event numbers, many jobs by commits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol

from services.enqueue.domain import Event
from services.enqueue.watch.updates import Cursor, Whole

PAGE = 500


class Scope(NamedTuple):
    """What is watched: a job or a batch by its id, or all jobs of the team (id 0)."""

    team: str
    id: int = 0


@dataclass(frozen=True, slots=True)
class Start(Generic[Cursor]):
    """Where a watch begins.

    Attributes:
        after: the watcher's own cursor.
        sent: where the tail begins for a scope that nobody watches here yet; a replay that is
            read later reaches at least to it.
        greeting: the watcher is told its cursor before anything else.
    """

    after: Cursor
    sent: Cursor
    greeting: bool = False


@dataclass(frozen=True, slots=True)
class News(Generic[Cursor, Whole]):
    """Some events of a scope in order, and the whole as it stands: never older than they are.

    Attributes:
        events: each with its cursor.
        whole: the job or the batch; None where there is no such thing.
        end: the cursor behind the whole as it stands.
        more: read on at once.
        held_back: there are events that are not sure yet: look again soon.
        final: nothing follows these events.
        skipped_from: events from here on are not there any more.
    """

    events: list[tuple[Cursor, Event]]
    whole: Whole | None
    end: Cursor
    more: bool = False
    held_back: bool = False
    final: bool = False
    skipped_from: Cursor | None = None


class Source(Protocol[Cursor, Whole]):
    """Reads scopes of one kind."""

    async def start(self, scope: Scope, after: Cursor | None) -> Start[Cursor]:
        """Whether this caller may watch from there; typed errors where not."""
        ...

    async def page(self, scope: Scope, after: Cursor) -> News[Cursor, Whole]:
        """What one watcher reads for itself."""
        ...

    async def news(self, cursors: Mapping[Scope, Cursor]) -> Mapping[Scope, News[Cursor, Whole]]:
        """What is new in several scopes, for all who watch them; gone ones are left out."""
        ...

    async def behind(self, cursors: Mapping[Scope, Cursor]) -> set[Scope]:
        """Those of the scopes in which something stands behind the cursor."""
        ...
