"""What workers do to a job, with nothing running: fences, what is written, how a job comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from libs.common import outbox
from libs.common.crash import CrashPoints
from libs.common.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    LeaseLostError,
    NotFoundError,
)
from libs.common.ids import SystemIds
from libs.common.outcomes import Outcome
from services.enqueue import tables
from services.enqueue.domain import (
    Event,
    EventKind,
    Fault,
    Hold,
    ImageState,
    Job,
    JobState,
    MadeImage,
    Usage,
)
from services.enqueue.gateways import ProtoAnnouncer
from services.enqueue.store import events, jobs, ledger, teams
from services.enqueue.store.leases import ExpiredLease, Presence
from services.enqueue.usecases.deps import Deps, Limits
from services.enqueue.usecases.executing import (
    Held,
    claim_job,
    expire_lease,
    finish_job,
    get_outputs,
    record_image,
    record_image_failure,
    release_for_backoff,
    release_for_drain,
    renew_leases,
)
from services.enqueue.usecases.restoring import tell_again
from services.enqueue.wakeups import Changed, LocalWakeups, WakeUp
from tests.integration.enqueue.rooms import Rooms, open_rooms
from tests.support.databases import DatabaseUrls

MADE = MadeImage(7, "image/png", 11, 22, 33, "0" * 64, "m", Usage(1, 2, 3, 4))
NO = Fault("OUTPUT_BLOCKED", "no")


@dataclass
class Scene:
    """The use cases, and a look at what they have done."""

    rooms: Rooms
    deps: Deps
    relay_woken: list[None]
    woken: list[WakeUp]

    async def running(self, **fields: Any) -> tuple[Job, Held]:
        job = await self.rooms.running(**fields)
        return job, Held(job.id, job.fence)

    async def look(self, job: Job) -> Job:
        async with self.deps.db.read_all() as tx:
            found = await jobs.find(tx, job.id)
        assert found is not None
        return found

    async def last_event(self, job: Job) -> Event:
        """The newest of those since `job` was looked at; there is no gap in their numbers."""
        async with self.deps.db.read_all() as tx:
            found = await events.after(tx, job.id, 0, 100, team="red")
        until = (await self.look(job)).last_sequence + 1
        assert [event.sequence for event in found] == list(range(job.last_sequence + 1, until))
        return found[-1]

    async def wait_of(self, job: Job) -> float:
        """How many seconds it backs off, from its last event."""
        row, event = await self.rooms.row(job.id), await self.last_event(job)
        return float((row.not_before - event.at).total_seconds())


@pytest.fixture
async def scene(urls: DatabaseUrls) -> AsyncIterator[Scene]:
    relay_woken: list[None] = []
    woken: list[WakeUp] = []
    wakeups = LocalWakeups()
    wakeups.listen(woken.append)
    async with open_rooms(urls) as rooms:
        deps = Deps(
            db=rooms.db,
            announcer=ProtoAnnouncer(),
            wakeups=wakeups,
            wake_relay=lambda: relay_woken.append(None),
            limits=Limits(max_claims=5, max_rate_wait_seconds=1000),
            crash=CrashPoints(""),
            ids=SystemIds(),
        )
        yield Scene(rooms, deps, relay_woken, woken)


async def test_a_claim_is_answered_again_to_itself_and_to_nobody_else(scene: Scene) -> None:
    [job] = await scene.rooms.add(count=2, admitted=True)
    [waiting] = await scene.rooms.add()
    claimed = await claim_job(scene.deps, job.id, "c1", "w1")
    assert (claimed.state, claimed.fence, claimed.attempts) == (JobState.RUNNING, 1, 1)
    assert [image.index for image in claimed.images] == [1, 2]
    event = await scene.last_event(job)
    assert (event.kind, event.sequence) == (EventKind.STARTED, 3)
    assert await claim_job(scene.deps, job.id, "c1", "w1") == claimed
    assert await scene.last_event(job) == event
    for job_id in (job.id, waiting.id):
        with pytest.raises(FailedPreconditionError) as raised:
            await claim_job(scene.deps, job_id, "c2", "w2")
        assert raised.value.reason == "JOB_NOT_CLAIMABLE"
    with pytest.raises(NotFoundError):
        await claim_job(scene.deps, 10**9, "c1", "w1")
    worker = Presence("w1", ("image_generation.fast",), 4)
    held = {job.id: 1, waiting.id: 1, 10**9: 1}
    assert await renew_leases(scene.deps, worker, held) == [waiting.id, 10**9]
    assert (await get_outputs(scene.deps, "red", job.id)).images == claimed.images
    with pytest.raises(NotFoundError):
        await get_outputs(scene.deps, "blue", job.id)


async def test_a_recorded_image_is_kept_as_it_was_told_the_first_time(scene: Scene) -> None:
    job, held = await scene.running(count=2, shots=(2, 5), shots_of=6)
    image = await record_image(scene.deps, held, 2, MADE)
    assert (image.index, image.state, image.attempt, image.shot) == (2, ImageState.DONE, 1, 5)
    assert (image.made, image.fault) == (MADE, None)
    assert image.done_at is not None
    event = await scene.last_event(job)
    assert (event.kind, event.image_index, event.file_id) == (EventKind.IMAGE_DONE, 2, 7)
    assert scene.woken == [WakeUp((Changed(job.id, "red", 0),))]
    assert not scene.relay_woken
    again = await record_image(scene.deps, held, 2, replace(MADE, file_id=8))
    assert again == image
    assert await record_image_failure(scene.deps, held, 2, NO) == image
    stands = await scene.look(job)
    assert (stands.images_done, stands.images_failed) == (1, 0)
    assert stands.images[1] == image
    assert await scene.last_event(job) == event


async def test_an_image_uses_one_credit_of_a_team_that_pays(scene: Scene) -> None:
    _, of_free = await scene.running()
    job, of_paying = await scene.running(paying=True)
    for held, file_id in ((of_free, 7), (of_paying, 8), (of_paying, 8)):
        await record_image(scene.deps, held, 1, replace(MADE, file_id=file_id))
    async with scene.deps.db.read_all() as tx:
        entries = await ledger.page(tx, "red", job_id=0, before_id=None, limit=9)
    assert [(e.kind, e.job_id, e.image_index) for e in entries] == [
        (ledger.EntryKind.CAPTURE, job.id, 1)
    ]


async def test_a_failed_image_says_why(scene: Scene) -> None:
    job, held = await scene.running(count=2, shots=(2, 5), shots_of=6)
    image = await record_image_failure(scene.deps, held, 1, NO)
    assert (image.state, image.attempt, image.shot) == (ImageState.FAILED, 1, 2)
    assert (image.made, image.fault) == (None, NO)
    event = await scene.last_event(job)
    assert (event.kind, event.image_index, event.fault) == (EventKind.IMAGE_FAILED, 1, NO)
    assert await record_image(scene.deps, held, 1, MADE) == image
    stands = await scene.look(job)
    assert (stands.images_done, stands.images_failed) == (0, 1)


@pytest.mark.parametrize("index", [0, 3])
async def test_a_slot_that_is_not_there_is_refused(scene: Scene, index: int) -> None:
    _, held = await scene.running(count=2)
    with pytest.raises(InvalidArgumentError) as raised:
        await record_image(scene.deps, held, index, MADE)
    assert [violation.field for violation in raised.value.violations] == ["index"]


WRITES: dict[str, Callable[[Deps, Held], Awaitable[Any]]] = {
    "record": lambda deps, held: record_image(deps, held, 1, MADE),
    "fail": lambda deps, held: record_image_failure(deps, held, 1, NO),
    "finish": finish_job,
    "drain": release_for_drain,
    "backoff": lambda deps, held: release_for_backoff(deps, held, Outcome.OVERLOADED, "no", 0),
}


async def test_no_write_is_taken_from_a_claim_that_is_not_the_jobs_any_more(scene: Scene) -> None:
    job, held = await scene.running()
    canceled, of_canceled = await scene.running()
    async with scene.deps.db.duty() as tx:
        await jobs.cancel(tx, [canceled.id], confirm=60.0)
    before = await scene.look(job)
    for name, write in WRITES.items():
        for stale in (
            replace(held, fence=held.fence - 1),
            replace(held, fence=held.fence + 1),
            replace(held, job_id=10**9),
            of_canceled,
        ):
            with pytest.raises(LeaseLostError):
                await write(scene.deps, stale)
            assert await scene.look(job) == before, name
    await release_for_drain(scene.deps, held)
    with pytest.raises(LeaseLostError):
        await record_image(scene.deps, held, 1, MADE)  # its own fence, but it gave the job back


async def test_an_end_may_be_asked_for_again_by_its_own_claim(scene: Scene) -> None:
    good, of_good = await scene.running(paying=True)
    await record_image(scene.deps, of_good, 1, MADE)
    bad, of_bad = await scene.running(count=2, paying=True)
    [next_one] = await scene.rooms.add()
    for index in (1, 2):
        await record_image_failure(scene.deps, of_bad, index, replace(NO, message=f"no {index}"))
    for _ in range(2):
        assert await finish_job(scene.deps, of_good) is JobState.SUCCEEDED
        assert await finish_job(scene.deps, of_bad) is JobState.FAILED
    for held in (of_good, of_bad):
        with pytest.raises(LeaseLostError):
            await finish_job(scene.deps, replace(held, fence=held.fence + 1))
    assert (await scene.look(next_one)).admitted_at is not None, "their places are given on"
    assert ((await scene.look(good)).fault, (await scene.look(good)).dead) == (None, False)
    assert (await scene.look(good)).hold == Hold(1, 0)
    assert (await scene.last_event(good)).kind is EventKind.SUCCEEDED
    assert (await scene.last_event(bad)).kind is EventKind.FAILED
    ended = await scene.look(bad)
    assert ended.hold == Hold(2, 2)
    assert ended.finished_at is not None
    assert ended.fault is not None
    assert ended.fault.reason == "OUTPUT_BLOCKED"
    assert ended.fault.message.endswith("2 of 2 failed; the first: no 1")
    assert not ended.dead
    pending, of_pending = await scene.running(count=2)
    await record_image(scene.deps, of_pending, 1, replace(MADE, file_id=9))
    with pytest.raises(FailedPreconditionError, match="pending"):
        await finish_job(scene.deps, of_pending)
    assert (await scene.look(pending)).state is JobState.RUNNING


async def test_an_end_gives_on_no_more_than_the_teams_own_limit(scene: Scene) -> None:
    job, held = await scene.running()
    first, second = await scene.rooms.add(2)
    async with scene.deps.db.duty() as tx:
        await teams.set_limits(tx, "red", {"max_live_jobs": 1})
    await record_image(scene.deps, held, 1, MADE)
    await finish_job(scene.deps, held)
    assert (await scene.look(first)).admitted_at is not None
    assert (await scene.look(second)).admitted_at is None
    assert (await scene.look(job)).terminal


@pytest.mark.parametrize(
    ("attempts", "reason", "dead"),
    [(3, "OVERLOADED", True), (2, "OVERLOADED", False), (3, "OUTPUT_BLOCKED", False)],
)
async def test_a_job_is_dead_whose_images_wanted_an_attempt_that_was_not_left(
    scene: Scene, attempts: int, reason: str, *, dead: bool
) -> None:
    job, held = await scene.running()
    await scene.rooms.change(job.id, attempts=attempts)
    await record_image_failure(scene.deps, held, 1, Fault(reason, "no"))
    assert await finish_job(scene.deps, held) is JobState.FAILED
    assert (await scene.look(job)).dead is dead


async def test_a_drained_job_keeps_its_place_and_its_attempt(scene: Scene) -> None:
    job, held = await scene.running()
    assert await release_for_drain(scene.deps, held) is JobState.QUEUED
    async with scene.deps.db.read_all() as tx:
        assert await outbox.count(tx, tables.outbox) == 1, "its doorbell"
    assert len(scene.relay_woken) == 1
    back = await scene.look(job)
    assert (back.state, back.attempts, back.lost_workers, back.dispatch_no) == (
        JobState.QUEUED,
        0,
        0,
        2,
    )
    assert back.admitted_at is not None
    row = await scene.rooms.row(job.id)
    assert (row.claim_id, row.worker, row.lease_expires_at, row.rings) == (None, None, None, 0)
    assert row.ring_at is not None
    event = await scene.last_event(job)
    assert (event.kind, event.fault and event.fault.reason) == (
        EventKind.REQUEUED,
        "WORKER_DRAINED",
    )


@pytest.mark.parametrize(
    ("columns", "outcome", "retry_after", "wait", "attempts"),
    [
        ({"attempts": 4, "max_attempts": 10}, Outcome.OVERLOADED, 0.0, 16.0, 4),
        ({"attempts": 2}, Outcome.OVERLOADED, 30.0, 30.0, 2),
        ({"attempts": 9, "max_attempts": 10}, Outcome.OVERLOADED, 0.0, 60.0, 9),
        ({"attempts": 1, "rate_waits": 4}, Outcome.RATE_LIMITED, 0.0, 16.0, 0),
        ({"attempts": 5}, Outcome.RATE_LIMITED, 0.0, 32.0, 4),
    ],
)
async def test_how_long_a_job_backs_off(
    scene: Scene,
    columns: dict[str, int],
    outcome: Outcome,
    *,
    retry_after: float,
    wait: float,
    attempts: int,
) -> None:
    job, held = await scene.running()
    await scene.rooms.change(job.id, **columns)
    [next_one] = await scene.rooms.add()
    state = await release_for_backoff(scene.deps, held, outcome, "busy", retry_after)
    assert state is JobState.QUEUED
    assert (await scene.look(next_one)).admitted_at is not None, "its place is given on"
    # Never all of them at once: a job waits for half of it or more, and after what the provider
    # asks for up to a quarter longer.
    least, most = (wait, 1.25 * wait) if retry_after else (wait / 2, wait)
    assert least - 0.5 < await scene.wait_of(job) < most + 0.5
    row = await scene.rooms.row(job.id)
    assert (row.claim_id, row.worker, row.lease_expires_at, row.ring_at) == (None,) * 4
    back = await scene.look(job)
    assert (back.state, back.attempts, back.admitted_at) == (JobState.QUEUED, attempts, None)
    limited = outcome is Outcome.RATE_LIMITED
    assert back.rate_waits == columns.get("rate_waits", 0) + int(limited)
    event = await scene.last_event(job)
    assert (event.kind, event.fault) == (EventKind.REQUEUED, Fault(outcome.value, "busy"))


@pytest.mark.parametrize(
    ("columns", "outcome", "ends"),
    [
        ({"attempts": 3}, Outcome.OVERLOADED, True),
        ({"dispatch_no": 5}, Outcome.OVERLOADED, True),
        ({"dispatch_no": 5, "rate_waits": 1}, Outcome.OVERLOADED, False),
        ({"started_at": -2000}, Outcome.RATE_LIMITED, True),
        ({"started_at": -500}, Outcome.RATE_LIMITED, False),
    ],
)
async def test_a_job_does_not_circle_for_ever(
    scene: Scene, columns: dict[str, int], outcome: Outcome, *, ends: bool
) -> None:
    job, held = await scene.running()
    await scene.rooms.change(job.id, **columns)
    state = await release_for_backoff(scene.deps, held, outcome, "busy", 0)
    assert state is (JobState.FAILED if ends else JobState.QUEUED)
    stands = await scene.look(job)
    assert (stands.state, stands.dead) == (state, ends)
    assert stands.fault == (Fault(outcome.value, "busy") if ends else None)


async def test_a_job_of_a_restored_database_backs_off_like_any_other(scene: Scene) -> None:
    """Its fence is beyond all that were ever given out, and counts nothing."""
    [job] = await scene.rooms.add(admitted=True)
    await tell_again(scene.deps, fence=10**15, ended_seconds=60.0)
    claimed = await claim_job(scene.deps, job.id, "c1", "w1")
    assert claimed.fence > 10**15
    held = Held(job.id, claimed.fence)
    state = await release_for_backoff(scene.deps, held, Outcome.OVERLOADED, "busy", 0)
    assert state is JobState.QUEUED


async def test_a_job_whose_images_are_all_there_ends_well_however_it_is_given_back(
    scene: Scene,
) -> None:
    job, held = await scene.running()
    await record_image(scene.deps, held, 1, MADE)
    await scene.rooms.change(job.id, attempts=3)
    state = await release_for_backoff(scene.deps, held, Outcome.OVERLOADED, "busy", 0)
    assert state is JobState.SUCCEEDED
    ended = await scene.look(job)
    assert (ended.state, ended.dead, ended.fault) == (JobState.SUCCEEDED, False, None)


@pytest.mark.parametrize(
    ("lost", "blame", "state", "counted"),
    [
        (0, True, JobState.QUEUED, 1),
        (1, True, JobState.QUEUED, 2),
        (2, True, JobState.FAILED, 3),
        (2, False, JobState.QUEUED, 2),
    ],
)
async def test_lost_workers_are_counted_apart_from_attempts(
    scene: Scene, lost: int, state: JobState, counted: int, *, blame: bool
) -> None:
    job, _ = await scene.running()
    lease = ExpiredLease(job.id, "red", job.fence)
    await expire_lease(scene.deps, lease)
    assert await scene.look(job) == replace(job, images=(await scene.look(job)).images)
    await scene.rooms.change(job.id, lease_expires_at=-10, lost_workers=lost)
    await expire_lease(scene.deps, lease, blame=blame)
    stands = await scene.look(job)
    assert (stands.state, stands.lost_workers, stands.attempts) == (state, counted, 0)
    assert stands.dead is (state is JobState.FAILED)
    event = await scene.last_event(job)
    assert event.fault is not None
    assert event.fault.reason == "WORKER_LOST"
