"""Teams at work: jobs, batches, cancels, retries and watchers, each call repeated till answered."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from contentshop.assets.v1 import assets_pb2
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.errors import (
    AbortedError,
    ContentshopError,
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from tests.chaos.house import FAILING_WORDS, ChaosHouse
from tests.chaos.watching import Seen, watch
from tests.support.fleet_batch import BatchWatched, FleetBatch
from tests.support.fleet_team import FleetTeam

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "mug.jpg"
CREDITS = 1_000_000
PAUSE_SECONDS = 0.2
AT_ONCE_PER_TEAM = 8
REPEATED = (UnavailableError, AbortedError, DeadlineExceededError, ResourceExhaustedError)
TWICE_WORDS = "words-twice"
# What a bad answer and a second one fail an image with: faults of the stub bring both about.
BAD_ANSWERS = {"NO_IMAGE", "TEXT_ONLY", "INVALID_OUTPUT"}

T = TypeVar("T")


@dataclass
class Accepted:
    """What was answered: the promises that were made."""

    requests: dict[tuple[str, str, str], int] = field(default_factory=dict)  # → what it made
    jobs: dict[int, Seen | None] = field(default_factory=dict)  # a batch's jobs: without a watcher
    batches: int = 0
    images: int = 0
    canceled: int = 0
    retried: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    watchers: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def live(self) -> int:
        """Jobs that have not ended yet."""
        return len(self.jobs) - self.ended.total()


class Load:
    """Makes work until it is told to stop, and then follows all of it to its end.

    Args:
        house: who does the work.
        teams: how many ask for it.
        jobs_per_minute: of all teams.
    """

    def __init__(self, house: ChaosHouse, *, teams: int, jobs_per_minute: float) -> None:
        self._house = house
        self._dice = random.Random(house.dice.random())  # noqa: S311 - to be repeated
        self._teams = [house.fleet.team(f"chaos-{number}") for number in range(1, teams + 1)]
        self._mean_pause = 60.0 * teams / jobs_per_minute
        self._stopping = asyncio.Event()
        self._photos: dict[str, assets_pb2.File] = {}
        self.accepted = Accepted()

    @property
    def teams(self) -> dict[str, FleetTeam]:
        """By name."""
        return {team.name: team for team in self._teams}

    async def prepare(self) -> None:
        """Gives credits and uploads a photo, before anything goes wrong."""
        data = await asyncio.to_thread(PHOTO.read_bytes)
        for team in self._teams:
            await self._house.fleet.grant(team, CREDITS)
            self._photos[team.name] = await team.upload(data)

    def stop(self) -> None:
        """No more work; what is there goes on."""
        self._stopping.set()

    async def run(self) -> None:
        """Until it is told to stop and everything has ended."""
        async with asyncio.TaskGroup() as group:
            for team in self._teams:
                group.create_task(self._team_at_work(team))

    async def repeat(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer, however often it has to be asked for."""
        while True:
            try:
                return await call()
            except REPEATED as error:
                self._house.ledger.answers[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    def _token(self) -> str:
        return f"{self._dice.getrandbits(64):016x}"

    async def _team_at_work(self, team: FleetTeam) -> None:
        places = asyncio.Semaphore(AT_ONCE_PER_TEAM)
        async with asyncio.TaskGroup() as group:
            while not self._stopping.is_set():
                await places.acquire()
                work = self._dice.choices(
                    [self._one_job, self._one_batch, self._one_file], weights=[88, 5, 7]
                )[0]
                task = group.create_task(self._guarded(work, team))
                task.add_done_callback(lambda _: places.release())
                pause = self._dice.expovariate(1.0 / self._mean_pause)
                try:
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
                except TimeoutError:
                    continue

    async def _guarded(self, work: Callable[[FleetTeam], Awaitable[None]], team: FleetTeam) -> None:
        """An answer that nobody foresaw is a broken promise, and no reason to end the others."""
        try:
            await work(team)
        except (ContentshopError, AssertionError) as error:
            self.accepted.wrong.append(f"{team.name}: {type(error).__name__}: {error}")

    async def _one_job(self, team: FleetTeam) -> None:
        count = self._dice.choices([1, 2, 3, 4], weights=[3, 3, 2, 3])[0]
        words = ""
        if self._dice.random() < 0.06:
            words = self._dice.choice([*FAILING_WORDS, TWICE_WORDS])
        request_id, photo = self._token(), self._photos[team.name]
        job = await self.repeat(
            lambda: team.make_job(
                photo, count, request_id=request_id, input={"custom_instructions": words}
            )
        )
        self.accepted.requests[team.name, "EnqueueGeneration", request_id] = job.id
        await self._follow(team, job, words)

    async def _follow(self, team: FleetTeam, job: job_pb2.Job, words: str) -> None:
        """Watches a job to its end; may cancel it, and may have it made again."""
        seen = self.accepted.jobs[job.id] = Seen(job.id)
        self.accepted.images += job.number_of_variations
        cancels = self._dice.random() < 0.06
        async with asyncio.TaskGroup() as group:
            group.create_task(watch(team, seen, self._dice, slow=self._dice.random() < 0.1))
            if cancels:
                group.create_task(self._cancel(team, job.id))
        ended = self._settle(seen)
        wanted = FAILING_WORDS.get(words, "")
        failed = ended.state == job_pb2.JOB_STATE_FAILED
        if failed and ended.error.reason not in {wanted, *BAD_ANSWERS}:
            self.accepted.wrong.append(f"job {job.id} failed: {ended.error}")
        if ended.state == job_pb2.JOB_STATE_SUCCEEDED and wanted:
            self.accepted.wrong.append(f"job {job.id} succeeded with {words}")
        if ended.state == job_pb2.JOB_STATE_FAILED and self._dice.random() < 0.5:
            await self._retry(team, job.id, words)

    def _settle(self, seen: Seen) -> job_pb2.Job:
        """Counts an ended job; what its watcher missed is kept."""
        job = seen.job
        assert job is not None
        self.accepted.ended[job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")] += 1
        self.accepted.connections += seen.connections
        self.accepted.watchers += 1
        self.accepted.wrong += [f"watcher of job {job.id}: {line}" for line in seen.broken()]
        return job

    async def _cancel(self, team: FleetTeam, job_id: int) -> None:
        await asyncio.sleep(self._dice.uniform(0.0, 8.0))
        try:
            await self.repeat(lambda: team.cancel(job_id))
        except FailedPreconditionError:
            return  # it had ended
        self.accepted.canceled += 1

    async def _retry(self, team: FleetTeam, job_id: int, words: str) -> None:
        request = enqueue_pb2.RetryJobRequest(
            request_id=self._token(), job_id=job_id, only_missing=True
        )
        answer = await self.repeat(lambda: team.ask("RetryJob", request))
        self.accepted.requests[team.name, "RetryJob", request.request_id] = answer.job.id
        self.accepted.retried += 1
        await self._follow(team, answer.job, words)

    async def _one_batch(self, team: FleetTeam) -> None:
        request_id, photo = self._token(), self._photos[team.name]
        variants = [f"v{number}" for number in range(1, self._dice.randint(2, 4) + 1)]
        each = self._dice.randint(1, 3)
        made = await self.repeat(
            lambda: team.make_batch(photo, variants, each, request_id=request_id)
        )
        self.accepted.requests[team.name, "EnqueueBatch", request_id] = made.id
        self.accepted.batches += 1
        self.accepted.images += each * len(variants)
        self.accepted.jobs.update(dict.fromkeys(made.job_ids))
        batch, seen = FleetBatch(team, made.id), BatchWatched()
        await self.repeat(lambda: batch.watch(seen))
        self.accepted.connections += seen.connections
        self.accepted.watchers += 1
        for state in ("succeeded", "failed", "canceled"):
            self.accepted.ended[state.upper()] += getattr(seen.batch.jobs, state)
        if seen.batch.jobs.succeeded != len(variants):
            self.accepted.wrong.append(f"batch {made.id} ended with {seen.batch.jobs}")
        if len(set(seen.done)) != len(seen.done):
            self.accepted.wrong.append(f"batch {made.id}: its watcher saw {seen.done}")

    async def _one_file(self, team: FleetTeam) -> None:
        """Uploaded, and deleted again."""
        data = await asyncio.to_thread(PHOTO.read_bytes)
        file = await self.repeat(lambda: team.upload(data))

        async def delete() -> None:
            try:
                await team.delete(file.id)
            except NotFoundError:
                return  # by a call whose answer was lost

        await self.repeat(delete)
