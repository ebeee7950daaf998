"""Places: what counts as live or waiting, who is admitted in which order, what is rung again."""

from __future__ import annotations

from services.enqueue.domain import JobState
from services.enqueue.store import admission, jobs, lanes, teams
from services.enqueue.store.admission import Places
from tests.integration.enqueue.rooms import LONG, Rooms


async def places(rooms: Rooms, default: int = 3, **limits: int | None) -> dict[str, Places]:
    async with rooms.db.duty() as tx:
        return await admission.places(tx, limits, default)


async def admit(rooms: Rooms, free: int, team: str = "red") -> list[int]:
    async with rooms.db.duty() as tx:
        return [job.id for job in await admission.admit_waiting(tx, team, free, LONG)]


async def test_admitted_and_running_jobs_hold_a_place_and_ended_ones_none(rooms: Rooms) -> None:
    await rooms.add(admitted=True)
    await rooms.running()
    await rooms.ended()
    [canceled] = await rooms.add(admitted=True)
    async with rooms.db.duty() as tx:
        await jobs.cancel(tx, [canceled.id], confirm=60.0)
    await rooms.add(admitted=True, team="blue")
    assert await places(rooms, red=None) == {"red": Places(1, waiting=False)}
    assert await places(rooms, red=5, blue=None) == {
        "red": Places(3, waiting=False),
        "blue": Places(2, waiting=False),
    }
    assert await places(rooms, red=2) == {"red": Places(0, waiting=False)}
    assert await places(rooms, red=1) == {"red": Places(0, waiting=False)}, "a limit was lowered"
    async with rooms.db.read_all() as tx:
        assert await admission.live_count(tx, "red") == 2


async def test_only_a_queued_job_that_is_due_waits_for_a_place(rooms: Rooms) -> None:
    [job] = await rooms.add()
    await rooms.add(team="blue", admitted=True)
    waits = []
    for not_before in (None, -5, 1000):
        await rooms.change(job.id, not_before=not_before)
        found = await places(rooms, red=None, blue=None)
        waits.append((found["red"].waiting, found["blue"].waiting))
    assert waits == [(True, False), (True, False), (False, False)]
    async with rooms.db.duty() as tx:
        await jobs.cancel(tx, [job.id], confirm=60.0)
    assert not (await places(rooms, red=None))["red"].waiting


async def test_places_are_given_by_priority_and_then_in_order_of_arrival(rooms: Rooms) -> None:
    first, second = await rooms.add(2)
    [urgent] = await rooms.add(priority=5)
    [backing_off] = await rooms.add(priority=9)
    await rooms.change(backing_off.id, not_before=1000)
    [other] = await rooms.add(team="blue")
    await rooms.add(admitted=True)
    assert await admit(rooms, 0) == []
    assert await admit(rooms, -1) == []
    assert await admit(rooms, 2) == [first.id, urgent.id]
    assert await admit(rooms, 9) == [second.id]
    assert await admit(rooms, 9) == []
    assert (await rooms.row(other.id)).admitted_at is None
    await rooms.change(backing_off.id, not_before=-1)
    assert await admit(rooms, 1) == [backing_off.id]


async def test_an_admitted_job_is_written_down_whole(rooms: Rooms) -> None:
    [job] = await rooms.add()
    await rooms.change(job.id, not_before=-1, rings=4)
    before = await rooms.now()
    async with rooms.db.duty() as tx:
        [admitted] = await admission.admit_waiting(tx, "red", 1, LONG)
    row = await rooms.row(job.id)
    assert row.state == JobState.QUEUED
    assert before <= row.admitted_at <= await rooms.now()
    assert (row.dispatch_no, row.last_sequence, row.rings) == (1, 2, 0)
    assert row.not_before is None
    assert LONG / 2 < (row.ring_at - before).total_seconds() < 2 * LONG
    assert (admitted.dispatch_no, admitted.last_sequence) == (1, 2)


async def test_a_teams_rows_are_made_once_and_say_its_own_limit(rooms: Rooms) -> None:
    async with rooms.db.duty() as tx:
        for _ in range(2):
            await admission.ensure_teams(tx, ["red", "blue"])
        assert await admission.lock_teams(tx, ["red", "blue", "none"]) == {
            "red": None,
            "blue": None,
        }
        assert await admission.lock_teams(tx, ["blue"]) == {"blue": None}
        assert await admission.limit_of(tx, "red") is None
        await teams.set_limits(tx, "blue", {"max_live_jobs": 7})
        assert await admission.lock_teams(tx, ["blue"]) == {"blue": 7}
        assert [await admission.limit_of(tx, team) for team in ("red", "blue")] == [None, 7]


async def test_waiting_jobs_are_counted_no_further_than_asked(rooms: Rooms) -> None:
    await rooms.add(3)
    await rooms.add(admitted=True)
    await rooms.add(team="blue")
    async with rooms.db.read_all() as tx:
        assert [await admission.waiting_count(tx, "red", most) for most in (2, 3, 9)] == [2, 3, 3]
        assert await admission.waiting_count(tx, "blue", 9) == 1


async def test_teams_whose_back_off_is_over_are_named_once(rooms: Rooms) -> None:
    async def named(limit: int = 10) -> list[str]:
        async with rooms.db.read_all() as tx:
            return await admission.teams_with_due_jobs(tx, 3, limit)

    for team in ("red", "red", "blue", "later", "waits", "holds", "over"):
        [job] = await rooms.add(team=team)
        if team != "waits":
            await rooms.change(job.id, not_before=1000 if team == "later" else -1)
        if team == "holds":
            await rooms.change(job.id, admitted_at=0)
        if team == "over":
            await rooms.change(job.id, state="CANCELED")
    assert await named() == ["blue", "red"]
    assert await named(1) == ["blue"]
    await rooms.add(3, team="blue", admitted=True)
    assert await named(1) == ["red"], "who has no place hides nobody"


async def test_what_is_rung_again_and_in_which_order(rooms: Rooms) -> None:
    late, later, ahead, answered, paused, waits = await rooms.add(
        5, admitted=True
    ) + await rooms.add(team="blue")
    await rooms.change(later.id, ring_at=-10)
    await rooms.change(late.id, ring_at=-20)
    await rooms.change(ahead.id, ring_at=1000)
    await rooms.change(answered.id, ring_at=-10, state="RUNNING", lease_expires_at=LONG)
    await rooms.change(paused.id, ring_at=-10, lane="image_edit.fast")
    await rooms.change(waits.id, ring_at=-10)

    async def rung(limit: int = 10) -> list[int]:
        async with rooms.db.duty() as tx:
            return [job.id for job in await admission.to_ring(tx, limit)]

    async with rooms.db.duty() as tx:
        await lanes.pause(tx, "image_edit.fast", "no")
    assert await rung() == [late.id, later.id]
    assert await rung(1) == [late.id]
    before = await rooms.now()
    async with rooms.db.duty() as tx:
        await admission.rung(tx, {LONG: [late.id], 2 * LONG: [later.id]})
        await admission.rung(tx, {LONG: [late.id]})
        assert await admission.rings_of(tx, [late.id, later.id]) == {late.id: 2, later.id: 1}
        assert await admission.rings_of(tx, [late.id]) == {late.id: 2}
    assert await rung() == []
    next_times = [(await rooms.row(job.id)).ring_at for job in (late, later)]
    hours = [round((at - before).total_seconds() / LONG) for at in next_times]
    assert hours == [1, 2]
    assert (await rooms.row(ahead.id)).rings == 0
