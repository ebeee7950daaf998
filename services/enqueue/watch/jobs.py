"""One job, watched by its gapless event numbers."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common.db import Database
from libs.common.errors import NotFoundError
from services.enqueue.domain import Job, cursor_past_end
from services.enqueue.store import events, jobs, leases
from services.enqueue.watch.sources import PAGE, News, Scope, Start


class JobSource:
    """Reads jobs. Events are read before their job: so the job is never older than they are.

    A page is of one moment: an event that came between would look like one cleaned up before.

    Args:
        db: enqueue's database.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def start(self, scope: Scope, after: int | None) -> Start[int]:
        """The cursors; NotFoundError, InvalidArgumentError: past the last event."""
        after = after or 0
        async with self._db.read(scope.team) as tx:
            sequence = await jobs.last_sequence(tx, scope.id, scope.team)
        if sequence is None:
            raise NotFoundError("job")
        if after > sequence:
            raise cursor_past_end()
        return Start(after, sequence)

    async def page(self, scope: Scope, after: int) -> News[int, Job]:
        """The job's next events; the ending cannot slip between them and the job."""
        async with self._db.snapshot(scope.team) as tx:
            found = await events.after(tx, scope.id, after, PAGE, team=scope.team)
            job = await jobs.find(tx, scope.id, scope.team)
        if job is None:
            raise NotFoundError("job")
        if found and found[0].sequence != after + 1:
            found = []  # of a zip that came after the clean-up: the job as it stands says it too
        cursor = found[-1].sequence if found else after
        missing = job.last_sequence - cursor
        return News(
            [(event.sequence, event) for event in found],
            job,
            job.last_sequence,
            more=bool(found and missing),
            final=job.final,
            skipped_from=cursor + 1 if missing else None,  # cleaned up
        )

    async def news(self, cursors: Mapping[Scope, int]) -> dict[Scope, News[int, Job]]:
        """All jobs' news in one pair of queries."""
        scopes = {scope.id: scope for scope in cursors}
        async with self._db.read_all() as tx:
            found = await events.after_each(tx, {s.id: cursor for s, cursor in cursors.items()})
            whole = await jobs.find_many(tx, list(scopes))
        news = {}
        for job in whole:
            here = [(event.sequence, event) for event in found[job.id]]
            missing = bool(here) and here[-1][0] < job.last_sequence
            news[scopes[job.id]] = News(
                here, job, job.last_sequence, more=missing, final=job.final and not missing
            )
        return news

    async def behind(self, cursors: Mapping[Scope, int]) -> set[Scope]:
        """Jobs that moved on."""
        scopes = {scope.id: scope for scope in cursors}
        async with self._db.read_all() as tx:
            sequences = await leases.watched_sequences(tx, list(scopes))
        return {
            scopes[job_id]
            for job_id, sequence in sequences.items()
            if cursors[scopes[job_id]] < sequence
        }
