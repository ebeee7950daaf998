"""A watcher that keeps nothing but what has to be checked."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.errors import ContentshopError
from tests.support.fleet_team import FleetTeam

SILENCE_SECONDS = 20.0  # four heartbeats: then it hangs up by itself
PAUSE_SECONDS = 0.2


@dataclass
class Seen:
    """What a watcher was told of its job, over all its connections.

    Attributes:
        cursor: the number of the last event.
        endings: SUCCEEDED, FAILED or CANCELED, as often as they came.
        done: images, as they were told of.
        skips: messages that told of events that were not sent one by one.
        job: as the final message has it.
    """

    job_id: int
    cursor: int = 0
    connections: int = 0
    skips: int = 0
    endings: list[str] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    job: job_pb2.Job | None = None

    def take(self, message: enqueue_pb2.WatchJobResponse) -> None:
        """Checks that nothing is told twice or left out in silence."""
        update = message.WhichOneof("update")
        if update == "event":
            event = message.event
            if not message.sequence == event.sequence == self.cursor + 1:
                self.wrong.append(f"event {event.sequence} after {self.cursor}")
            kind = job_pb2.JobEventKind.Name(event.kind).removeprefix("JOB_EVENT_KIND_")
            if kind in {"SUCCEEDED", "FAILED", "CANCELED"}:
                self.endings.append(kind)
            if kind == "IMAGE_DONE":
                self.done.append(event.image_index)
        elif update == "snapshot" and message.snapshot.skipped_from:
            if message.snapshot.skipped_from != self.cursor + 1:
                self.wrong.append(f"skipped from {message.snapshot.skipped_from}: {self.cursor}")
            self.skips += 1
        elif message.sequence != self.cursor:
            self.wrong.append(f"{update} says {message.sequence}, not {self.cursor}")
        self.cursor = message.sequence
        if message.final:
            self.job = message.job

    def broken(self) -> list[str]:
        """One line per promise that was not kept to this watcher."""
        found = list(self.wrong)
        if self.job is None:
            return [*found, "never saw the end"]
        if self.cursor != self.job.last_sequence:
            found.append(f"ended at {self.cursor} of {self.job.last_sequence}")
        if not self.skips and len(self.endings) != 1:
            found.append(f"saw the endings {self.endings}")
        if len(set(self.done)) != len(self.done):
            found.append(f"saw images {self.done}")
        return found


async def watch(team: FleetTeam, seen: Seen, dice: random.Random, *, slow: bool = False) -> None:
    """To the end, coming back with the cursor; now and then it goes away by itself."""
    while seen.job is None:
        seen.connections += 1
        leaves_after = dice.randint(1, 4) if dice.random() < 0.1 else 0
        stream = team.watch_once(seen.job_id, seen.cursor)
        heard = 0
        try:
            while leaves_after == 0 or heard < leaves_after:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await anext(stream, None)
                if message is None:
                    break
                seen.take(message)
                heard += 1
                if slow:
                    await asyncio.sleep(1.0)
        except (ContentshopError, TimeoutError):
            pass
        finally:
            await stream.aclose()
        if seen.job is None:
            await asyncio.sleep(PAUSE_SECONDS)
