"""EnqueueService: watching jobs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

from contentshop.enqueue.v1 import enqueue_pb2
from libs.common.auth import current_caller
from libs.common.checks import MAX_ID, checking
from services.enqueue.batch import Batch
from services.enqueue.domain import Job, Position, bad_cursor
from services.enqueue.servicer.batch_messages import batch_message
from services.enqueue.servicer.convert import event_message, job_message
from services.enqueue.servicer.means import Doors
from services.enqueue.watch import Update
from services.enqueue.watch.updates import Cursor, Whole

Message = TypeVar("Message")

_CURSOR = re.compile(r"(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})")


class WatchDoors(Doors):
    """Streams; the team is the token's. A message is made once for all who watch the same here."""

    async def WatchJob(
        self, request: enqueue_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[enqueue_pb2.WatchJobResponse]:
        """Streams a job's updates until the final one."""
        with checking() as check:
            check.id(request.job_id, "job_id")
            check.check(request.after_sequence >= 0, "after_sequence", "must not be negative")
        team = current_caller().team
        async for update in self._means.hub.watch_job(team, request.job_id, request.after_sequence):
            yield _rendered(update, job_update)
            del update  # thousands wait here: none keeps what it was told

    async def WatchBatch(
        self, request: enqueue_pb2.WatchBatchRequest, context: Any
    ) -> AsyncIterator[enqueue_pb2.WatchBatchResponse]:
        """Streams the updates of a batch's jobs until the final one."""
        with checking() as check:
            check.id(request.batch_id, "batch_id")
        after = position_of(request.after_cursor)
        team = current_caller().team
        async for update in self._means.hub.watch_batch(team, request.batch_id, after):
            yield _rendered(update, batch_update)
            del update  # thousands wait here: none keeps what it was told

    async def WatchTeam(
        self, request: enqueue_pb2.WatchTeamRequest, context: Any
    ) -> AsyncIterator[enqueue_pb2.WatchTeamResponse]:
        """Streams the updates of all the team's jobs, without end."""
        after = position_of(request.after_cursor)
        async for update in self._means.hub.watch_team(current_caller().team, after):
            yield _rendered(update, team_update)
            del update  # thousands wait here: none keeps what it was told


def _rendered(
    update: Update[Cursor, Whole], render: Callable[[Update[Cursor, Whole]], Message]
) -> Message:
    """The update's message, made by the first of those who share it."""
    if update.rendered is None:
        update.rendered = render(update)
    return cast("Message", update.rendered)


def cursor_of(position: Position) -> str:
    """The cursor over many jobs that stands for a position."""
    return ".".join(map(str, position))


def position_of(cursor: str) -> Position | None:
    """The position a cursor stands for, None for an empty one; BAD_CURSOR for what we never made.

    Whether it is past the end is for the watch to see.
    """
    if not cursor:
        return None
    # Matched by the bounded pattern alone: a long string costs no more than a short one.
    match = _CURSOR.fullmatch(cursor)
    numbers = tuple(map(int, match.groups())) if match else ()
    if not numbers or max(numbers) > MAX_ID:
        raise bad_cursor("is not a cursor of a watch")
    return Position(*numbers)


def job_update(update: Update[int, Job]) -> enqueue_pb2.WatchJobResponse:
    """A message of a job's watch."""
    message = enqueue_pb2.WatchJobResponse(sequence=update.cursor, final=update.final)
    if update.whole is None:
        message.heartbeat.SetInParent()
        return message
    if update.event is not None:
        message.event.CopyFrom(event_message(update.event))
    else:
        message.snapshot.skipped_from = update.skipped_from or 0
        message.snapshot.SetInParent()
    message.job.CopyFrom(job_message(update.whole))
    return message


def batch_update(update: Update[Position, Batch]) -> enqueue_pb2.WatchBatchResponse:
    """A message of a batch's watch."""
    message = enqueue_pb2.WatchBatchResponse(cursor=cursor_of(update.cursor), final=update.final)
    if update.whole is None:
        message.heartbeat.SetInParent()
        return message
    if update.event is not None:
        message.event.CopyFrom(event_message(update.event))
    else:
        message.snapshot.skipped = update.skipped_from is not None
        message.snapshot.SetInParent()
    message.batch.CopyFrom(batch_message(update.whole))
    return message


def team_update(update: Update[Position, None]) -> enqueue_pb2.WatchTeamResponse:
    """A message of a team's watch."""
    message = enqueue_pb2.WatchTeamResponse(cursor=cursor_of(update.cursor))
    if update.event is not None:
        message.event.CopyFrom(event_message(update.event))
    elif update.heartbeat:
        message.heartbeat.SetInParent()
    else:
        message.skipped.SetInParent()
    return message
