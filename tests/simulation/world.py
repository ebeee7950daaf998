"""One enqueue, its database and everything around it, on a clock and dice of our own.

What is real: every use case behind EnqueueService, ExecutionService and OpsService, the relay and
all duties, the tables and their constraints. What is played: the broker, which loses, doubles and
reorders; workers, which die, stall and come back as zombies; assets and the packager.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from contentshop.assets.v1 import backend_pb2
from contentshop.enqueue.v1 import (
    batch_pb2,
    enqueue_pb2,
    execution_pb2,
    job_pb2,
    messages_pb2,
    ops_pb2,
)
from libs.common import env
from libs.common.auth import Caller, set_current_caller
from libs.common.broker import JOB_ENDED, lane_queue
from libs.common.errors import ContentshopError
from libs.common.migrations import migrate
from services.enqueue.app import EnqueueApp, build
from services.enqueue.references import Resolved, Wanted
from services.enqueue.settings import Settings
from services.enqueue.store.confirming import Due
from tests.fakes.clock import ManualClock
from tests.simulation.broker import PlayedBroker
from tests.simulation.inline_sqlite import SqliteFiles, inline_database
from tests.support.databases import migrations_of

TEAMS = ("red", "blue")
EVENTS_DAYS = 5
CLEAN_UPS = ("retention", "event_retention")
CLEAN_UP_ROUNDS = 10
SECRET = "s" * 32
TEMPLATE_CHANGES: list[str] = []
"""Made to a new database; for plants."""


class Dice:
    """Names and jitter out of one seed."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def token(self) -> str:
        """Thirty-two digits."""
        return f"{self._random.getrandbits(128):032x}"

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high]."""
        return self._random.uniform(low, high)


class Resolver:
    """assets, as far as enqueueing needs it: every upload is there."""

    async def resolve(self, team: str, wanted: Wanted) -> Resolved:  # noqa: ARG002 - all teams'
        """The file ids in order."""
        await asyncio.sleep(0)
        return Resolved(tuple(ref.file_id for ref in wanted.refs))

    async def unheard(self, team: str, ended: Sequence[Due]) -> list[int]:  # noqa: ARG002 - all teams'
        """Nothing: what it is told it hears."""
        await asyncio.sleep(0)
        return []


@dataclass(slots=True)
class Claim:
    """What a worker remembers of a job."""

    job_id: int
    fence: int
    left: list[int]


@dataclass(slots=True)
class PlayedWorker:
    """A worker's memory; a crash forgets it."""

    name: str
    claims: dict[int, Claim] = field(default_factory=dict)


class World:
    """The whole, opened by `async with`; each method is one act of somebody."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.clock = ManualClock()
        self.broker = PlayedBroker(random, self.clock, self.look)
        self.workers = [PlayedWorker(f"worker-{n}") for n in (1, 2, 3)]
        self.made: dict[tuple[int, int], int] = {}  # assets: (job, index) → file, the first wins
        self.refusals: dict[str, int] = defaultdict(int)
        self.answers: dict[tuple[str, str], int] = {}
        self.cleaned_up = False
        self._folder = Path(tempfile.mkdtemp(prefix="contentshop-sim-"))
        self.path = self._folder / "enqueue.db"
        self.app: EnqueueApp
        self._tasks: list[asyncio.Task[Any]] = []  # of enqueue, in the order of their birth
        self._prune_at = 200
        self.reader: sqlite3.Connection

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_task_factory(self._make_task)
        self.path.write_bytes(template("enqueue"))
        self.reader = sqlite3.connect(self.path)
        self._open()
        return self

    def _open(self) -> None:
        url = f"sqlite+aiosqlite:///{self.path}"
        environ = {
            "ENQUEUE_DATABASE_URL": url,
            "AUTH_SECRET": SECRET,
            "SERVICE_SECRET": SECRET,
            "TEAMS_WITHOUT_ACCOUNT": "none",
            "RETENTION_EVENTS_DAYS": str(EVENTS_DAYS),
            "RETENTION_JOBS_DAYS": "100",
        }
        self._files = SqliteFiles(self.path)
        self.database = inline_database(url, self.clock, self._files)
        self.app = build(
            env.load(Settings, environ),
            clock=self.clock,
            ids=Dice(self.random),
            broker=self.broker,
            database=self.database,
            resolver=Resolver(),
        )

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **rest: Any) -> Any:
        task = asyncio.Task(work, loop=loop, **rest)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [one for one in self._tasks if not one.done()]
            self._prune_at = 2 * len(self._tasks) + 200
        self._tasks.append(task)
        return task

    async def crash(self) -> None:
        """enqueue dies at whatever it awaits: its memory is gone, its open transactions too."""
        me = asyncio.current_task()
        while others := [t for t in self._tasks if not t.done() and t is not me]:
            # Again and again: no clean-up that awaits may run in a process that is dead.
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=0)
        self._files.drop_all()
        self._open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.crash()
        self.reader.close()
        shutil.rmtree(self._folder)

    async def _team(self, team: str, method: str, request: Any) -> Any:
        set_current_caller(Caller("sim", team, frozenset({"team"})))
        return await self._told(getattr(self.app.doors.team, method)(request, None))

    async def _worker(self, method: str, request: Any) -> Any:
        set_current_caller(Caller("sim", "", frozenset({"worker"})))
        return await self._told(getattr(self.app.doors.worker, method)(request, None))

    async def _told(self, call: Any) -> Any:
        """The answer, or None for a typed refusal, which is counted."""
        try:
            return await call
        except ContentshopError as error:
            self.refusals[error.reason or type(error).__name__] += 1
            return None

    # What teams do.

    async def enqueue(self, team: str, count: int, priority: int = 0, request_id: str = "") -> None:
        """One generation."""
        request = enqueue_pb2.EnqueueGenerationRequest(
            product_images=[backend_pb2.ImageRef(file_id=1)],
            number_of_variations=count,
            priority=priority,
            request_id=request_id,
        )
        answer = await self._team(team, "EnqueueGeneration", request)
        if answer is not None and request_id:
            first = self.answers.setdefault((team, request_id), answer.job.id)
            # A key is kept for days; what it made then may be gone.
            assert first == answer.job.id or self.cleaned_up, f"{request_id}: two jobs"

    async def cancel(self, team: str, job_id: int) -> None:
        """CancelJob."""
        await self._team(team, "CancelJob", enqueue_pb2.CancelJobRequest(job_id=job_id))

    async def retry(self, team: str, job_id: int, *, only_missing: bool) -> None:
        """RetryJob."""
        request = enqueue_pb2.RetryJobRequest(job_id=job_id, only_missing=only_missing)
        await self._team(team, "RetryJob", request)

    async def batch(self, team: str, variants: int, count: int) -> None:
        """EnqueueBatch."""
        request = enqueue_pb2.EnqueueBatchRequest(
            name="simulated",
            variants=[
                batch_pb2.BatchVariant(product_images=[backend_pb2.ImageRef(file_id=n)])
                for n in range(1, variants + 1)
            ],
            settings=batch_pb2.BatchSettings(number_of_variations=count),
        )
        await self._team(team, "EnqueueBatch", request)

    async def cancel_batch(self, team: str, batch_id: int) -> None:
        """CancelBatch."""
        await self._team(team, "CancelBatch", enqueue_pb2.CancelBatchRequest(batch_id=batch_id))

    async def retry_batch(self, team: str, batch_id: int) -> None:
        """RetryBatch."""
        await self._team(team, "RetryBatch", enqueue_pb2.RetryBatchRequest(batch_id=batch_id))

    async def grant(self, team: str, amount: int, request_id: str) -> None:
        """GrantCredits, by an operator."""
        set_current_caller(Caller("sim", "", frozenset({"ops"})))
        request = ops_pb2.GrantCreditsRequest(team=team, amount=amount, request_id=request_id)
        await self._told(self.app.doors.ops.GrantCredits(request, None))

    # What workers do.

    async def take_doorbell(self, worker: PlayedWorker, lane: str) -> None:
        """Takes a message, claims, and forgets the message whatever comes of it."""
        body = self.broker.take(lane_queue(lane))
        if body is None:
            return
        job_id = messages_pb2.Doorbell.FromString(body).job_id
        request = execution_pb2.ClaimJobRequest(
            job_id=job_id, claim_id=f"{self.random.getrandbits(64):x}", worker=worker.name
        )
        claim = await self._worker("ClaimJob", request)
        if claim is not None:
            left = [image.index for image in claim.images]
            worker.claims[job_id] = Claim(job_id, claim.fence, left)

    async def work(self, worker: PlayedWorker, job_id: int, luck: float) -> None:
        """The next thing to do for a job: an image, a failure, handing back, or the end."""
        claim = worker.claims.get(job_id)
        if claim is None:
            return
        fence = claim.fence
        if not claim.left:
            finish = execution_pb2.FinishJobRequest(job_id=job_id, fence=fence)
            await self._worker("FinishJob", finish)
            self._let_go(worker, claim)  # refused: the lease is lost
        elif luck < 0.08:  # noqa: PLR2004 - the generator gives one image up
            failure = execution_pb2.RecordImageFailureRequest(
                job_id=job_id,
                fence=fence,
                index=claim.left[0],
                outcome="OUTPUT_BLOCKED",
                message="no",
            )
            self._done(worker, claim, await self._worker("RecordImageFailure", failure))
        elif luck < 0.2:  # noqa: PLR2004 - a fault that may pass, or a drain
            release = execution_pb2.ReleaseJobRequest(job_id=job_id, fence=fence)
            release.cause = execution_pb2.RELEASE_CAUSE_DRAIN
            if luck < 0.16:  # noqa: PLR2004
                release.cause = execution_pb2.RELEASE_CAUSE_BACKOFF
                release.outcome, release.message = "OVERLOADED", "busy"
            await self._worker("ReleaseJob", release)
            self._let_go(worker, claim)
        else:
            await self._record(worker, claim)

    async def _record(self, worker: PlayedWorker, claim: Claim) -> None:
        index = claim.left[0]
        slot = (claim.job_id, index)
        file_id = self.made.setdefault(slot, 1000 + len(self.made))
        request = execution_pb2.RecordImageRequest(
            job_id=claim.job_id,
            fence=claim.fence,
            index=index,
            file_id=file_id,
            content_type="image/png",
            width=8,
            height=8,
            size_bytes=9,
            sha256="0" * 64,
            model="sim",
            usage=job_pb2.Usage(total_tokens=1),
        )
        ((fence,),) = self.look(f"SELECT max(fence) FROM jobs WHERE id = {claim.job_id}")  # noqa: S608 - ours
        stale = fence is not None and fence > claim.fence  # and will be: fences only grow
        self._done(worker, claim, await self._worker("RecordImage", request), stale=stale)

    def _done(
        self, worker: PlayedWorker, claim: Claim, answer: Any, *, stale: bool = False
    ) -> None:
        assert not stale or answer is None, f"job {claim.job_id}: a stale fence wrote"
        if answer is None:
            self._let_go(worker, claim)  # LEASE_LOST: dropped at once
        elif claim.left:
            claim.left.pop(0)

    def _let_go(self, worker: PlayedWorker, claim: Claim) -> None:
        if worker.claims.get(claim.job_id) is claim:
            del worker.claims[claim.job_id]

    async def renew(self, worker: PlayedWorker) -> None:
        """Renews what it holds, and drops what it is told it has lost."""
        leases = [
            execution_pb2.HeldLease(job_id=c.job_id, fence=c.fence) for c in worker.claims.values()
        ]
        request = execution_pb2.RenewLeasesRequest(worker=worker.name, leases=leases, slots=4)
        answer = await self._worker("RenewLeases", request)
        for job_id in answer.lost_job_ids if answer is not None else ():
            worker.claims.pop(job_id, None)

    async def begin(self, worker: PlayedWorker) -> None:
        """Its process has died, and the next one of its name begins."""
        worker.claims.clear()
        request = execution_pb2.RenewLeasesRequest(worker=worker.name, slots=4, fresh=True)
        await self._worker("RenewLeases", request)

    # What others do.

    async def duty(self, name: str) -> None:
        """One round of a duty of enqueue, the relay among them."""
        await self._told(self.app.duties[name].once())

    async def clean_up(self) -> None:
        """Retention, until nothing is left to remove."""
        self.cleaned_up = True
        for name in CLEAN_UPS:
            for _ in range(CLEAN_UP_ROUNDS):
                await self.duty(name)

    async def packager(self, *, fails: bool) -> None:
        """Takes one ending, and reports its zip where one is due."""
        body = self.broker.take(JOB_ENDED)
        ended = messages_pb2.JobEnded.FromString(body or b"")
        if not ended.archive_wanted:
            return
        request = execution_pb2.RecordArchiveRequest(team=ended.team, job_id=ended.job_id)
        if fails:
            request.state = job_pb2.ARCHIVE_STATE_FAILED
            request.error.reason, request.error.message = "ZIP_FAILED", "no"
        else:
            request.state = job_pb2.ARCHIVE_STATE_READY
            request.file_id, request.size_bytes = 10_000_000 + ended.job_id, 10
            request.filename = "generation.zip"
        set_current_caller(Caller("sim", "", frozenset({"packager"})))
        await self._told(self.app.doors.worker.RecordArchive(request, None))

    # What the walk looks at to choose.

    def alive(self) -> bool:
        """Whether anything is still to come: a job, a zip, a message to be sent."""
        ((count,),) = self.look(
            "SELECT (SELECT count(*) FROM jobs WHERE state IN ('QUEUED','RUNNING')"
            " OR archive_state = 'PENDING') + (SELECT count(*) FROM outbox)"
        )
        return bool(count)

    def some_job(self, random: Random, state: str = "") -> tuple[int, str] | None:
        """Some job's id and team."""
        jobs = self.all_jobs(state)
        return random.choice(jobs) if jobs else None

    def all_jobs(self, state: str = "") -> list[tuple[int, str]]:
        """The ids and teams of all jobs in a state."""
        where = f"WHERE state = '{state}'" if state else ""
        return self.look(f"SELECT id, team FROM jobs {where} ORDER BY id")  # noqa: S608 - ours

    def some_batch(self, random: Random) -> tuple[int, str] | None:
        """Some batch's id and team."""
        rows = self.look("SELECT id, team FROM batches ORDER BY id")
        return random.choice(rows) if rows else None

    def look(self, query: str) -> list[Any]:
        """What is committed."""
        return self.reader.execute(query).fetchall()


@cache
def template(service: str) -> bytes:
    """A service's migrated database, made once per process, to be copied."""
    with tempfile.TemporaryDirectory(prefix="contentshop-sim-") as folder:
        path = Path(folder) / "template.db"
        migrate(f"sqlite+aiosqlite:///{path}", migrations_of(service))
        with closing(sqlite3.connect(path)) as connection:
            for change in TEMPLATE_CHANGES if service == "enqueue" else ():
                connection.execute(change)
        return path.read_bytes()
