"""A batch of a team of a fleet: watched with its cursor, and all that is kept of it, by page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from contentshop.assets.v1 import assets_pb2
from contentshop.enqueue.v1 import batch_pb2, credits_pb2, enqueue_pb2, job_pb2
from tests.support.fleet_team import FleetTeam, patiently

PAGE = 200


@dataclass
class BatchWatched:
    """What a batch's watcher saw, over all its connections.

    Attributes:
        events: job → the numbers of its events, as they came.
        done: (job, image index) as they came.
        cursor: the last one.
        connections: how often it came.
        skips: messages that told of events that were not sent one by one.
        batch: as the newest message has it.
        final: the last message has come.
    """

    events: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    done: list[tuple[int, int]] = field(default_factory=list)
    cursor: str = ""
    connections: int = 0
    skips: int = 0
    batch: batch_pb2.Batch = field(default_factory=batch_pb2.Batch)
    final: bool = False

    def has_done(self, images: int) -> bool:
        """Whether so many are told of."""
        return len(self.done) >= images

    def take(self, message: enqueue_pb2.WatchBatchResponse) -> None:
        """Asserts that each job's events come in order, once, and without gaps."""
        assert not self.final
        assert message.cursor
        self.cursor, self.final = message.cursor, message.final
        update = message.WhichOneof("update")
        if update == "heartbeat":
            return
        self.batch = message.batch
        if update == "snapshot":
            self.skips += message.snapshot.skipped
            return
        event, told = message.event, self.events[message.event.job_id]
        last = told[-1] if told else 0
        wanted = event.sequence > last if self.skips else event.sequence == last + 1
        assert wanted, (event.job_id, event.sequence, told, self.cursor, self.connections)
        told.append(event.sequence)
        if event.kind == job_pb2.JOB_EVENT_KIND_IMAGE_DONE:
            self.done.append((event.job_id, event.image_index))


class FleetBatch:
    """What a team asks of its batch."""

    def __init__(self, team: FleetTeam, batch_id: int) -> None:
        self._team = team
        self.id = batch_id

    async def watch(self, seen: BatchWatched) -> None:
        """Watches to the end from where `seen` is, coming back after each interruption."""
        while not seen.final:

            async def connect() -> None:
                seen.connections += 1
                async for message in self._team.watch_batch(self.id, seen.cursor):
                    seen.take(message)

            await patiently(connect)

    async def get(self) -> batch_pb2.Batch:
        """As it stands."""
        answer = await self._team.ask("GetBatch", enqueue_pb2.GetBatchRequest(batch_id=self.id))
        return answer.batch  # type: ignore[no-any-return]

    async def jobs(self) -> list[job_pb2.Job]:
        """All of its jobs."""
        request = enqueue_pb2.ListJobsRequest(batch_id=self.id, page_size=PAGE)
        return await _every(lambda: self._team.ask("ListJobs", request), request, "jobs")

    async def folders(self) -> list[assets_pb2.Folder]:
        """Its own and its variants'."""
        request = assets_pb2.ListFoldersRequest(batch_id=self.id, page_size=PAGE)
        return await _every(
            lambda: self._team.ask_assets("ListFolders", request), request, "folders"
        )

    async def files_in(self, folder_id: int) -> list[assets_pb2.File]:
        """All files of a folder."""
        request = assets_pb2.ListFolderFilesRequest(folder_id=folder_id, page_size=PAGE)
        return await _every(
            lambda: self._team.ask_assets("ListFolderFiles", request), request, "files"
        )

    async def images(self) -> list[assets_pb2.File]:
        """All generated files of the team that lists show."""
        kind = assets_pb2.FILE_KIND_GENERATED
        request = assets_pb2.ListFilesRequest(kind=kind, page_size=PAGE)
        return await _every(lambda: self._team.ask_assets("ListFiles", request), request, "files")

    async def credits(self) -> credits_pb2.Credits:
        """The team's."""
        answer = await self._team.ask("GetCredits", enqueue_pb2.GetCreditsRequest())
        return answer.credits  # type: ignore[no-any-return]


async def _every(call: Callable[[], Awaitable[Any]], request: Any, name: str) -> list[Any]:
    """All pages; the request's token is set for each."""
    found: list[Any] = []
    while True:
        answer = await call()
        found += getattr(answer, name)
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token
