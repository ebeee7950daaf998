"""The ledger: every move of credits, by the figures; and the figures that check them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.enqueue.domain import Hold, Job
from services.enqueue.store import credit_checks, jobs, ledger
from services.enqueue.store.credit_checks import AccountFigures, JobFigures
from services.enqueue.store.ledger import Account, EntryKind
from tests.integration.enqueue.rooms import Rooms


async def granted(rooms: Rooms, **amounts: int) -> None:
    for team, amount in amounts.items():
        async with rooms.db.duty() as tx:
            await ledger.open_account(tx, team)
            await ledger.grant(tx, team, amount, "hello")


async def accounts(rooms: Rooms, *teams: str) -> list[Account | None]:
    async with rooms.db.read_all() as tx:
        return [await ledger.find(tx, team) for team in teams]


async def entries(rooms: Rooms, team: str = "red") -> list[tuple[EntryKind, int, int, int]]:
    """Oldest first."""
    async with rooms.db.read_all() as tx:
        page = await ledger.page(tx, team, job_id=0, before_id=None, limit=100)
    return [(e.kind, e.amount, e.job_id, e.image_index) for e in reversed(page)]


def over(job: Job, released: int | None) -> Job:
    assert job.hold is not None
    return replace(job, hold=Hold(job.hold.held, released))


async def settle(rooms: Rooms, ended: Sequence[Job]) -> None:
    async with rooms.db.duty() as tx:
        await ledger.settle(tx, ended)


async def test_an_account_is_opened_once_and_granted_to(rooms: Rooms) -> None:
    assert await accounts(rooms, "red") == [None]
    await granted(rooms, red=5, blue=9)
    await granted(rooms, red=2)
    assert await accounts(rooms, "red", "blue") == [Account(7, 7, 0, 0), Account(9, 9, 0, 0)]
    assert await entries(rooms) == [(EntryKind.GRANT, 5, 0, 0), (EntryKind.GRANT, 2, 0, 0)]
    async with rooms.db.duty() as tx:
        assert await ledger.lock(tx, ["red", "none"]) == {"red": Account(7, 7, 0, 0)}
        first = await ledger.grant(tx, "red", 1, "note")
        assert await ledger.grant(tx, "red", 1, "note") > first
        [newest] = await ledger.page(tx, "red", job_id=0, before_id=None, limit=1)
    assert newest.note == "note"
    assert abs((newest.at - await rooms.now()).total_seconds()) < 60


async def test_holds_are_set_aside_of_each_teams_account(rooms: Rooms) -> None:
    await granted(rooms, red=10, blue=10, green=10)
    red = await rooms.add(2, paying=True, count=3)
    [free] = await rooms.add(count=4)
    [blue] = await rooms.add(team="blue", paying=True, count=2)
    async with rooms.db.duty() as tx:
        await ledger.hold(tx, [free])
        await ledger.hold(tx, [red[0], free, blue, red[1]])
    assert await accounts(rooms, "red", "blue", "green") == [
        Account(10, 4, 6, 0),
        Account(10, 8, 2, 0),
        Account(10, 10, 0, 0),
    ]
    holds = [(EntryKind.HOLD, 3, job.id, 0) for job in red]
    assert await entries(rooms) == [(EntryKind.GRANT, 10, 0, 0), *holds]


async def test_an_end_moves_the_hold_on_once(rooms: Rooms) -> None:
    await granted(rooms, red=10, blue=10)
    one, two, live = await rooms.add(3, paying=True, count=3)
    [free] = await rooms.add()
    async with rooms.db.duty() as tx:
        await ledger.hold(tx, [one, two, live])
        await ledger.capture(tx, one, 2)
    assert (await entries(rooms))[-1] == (EntryKind.CAPTURE, 1, one.id, 2)
    assert await accounts(rooms, "red") == [Account(10, 1, 9, 0)], "the account waits for the end"
    await settle(rooms, [free, over(live, None)])
    assert await accounts(rooms, "red") == [Account(10, 1, 9, 0)]
    for _ in range(2):
        await settle(rooms, [free, over(one, 2), over(live, None)])
        assert await accounts(rooms, "red") == [Account(10, 3, 6, 1)]
    await settle(rooms, [over(one, 2), over(two, 0), over(live, 3)])
    assert await accounts(rooms, "red", "blue") == [Account(10, 6, 0, 4), Account(10, 10, 0, 0)]
    released = [entry for entry in await entries(rooms) if entry[0] is EntryKind.RELEASE]
    assert released == [
        (EntryKind.RELEASE, 2, one.id, 0),
        (EntryKind.RELEASE, 0, two.id, 0),
        (EntryKind.RELEASE, 3, live.id, 0),
    ]


async def test_a_page_of_the_ledger_goes_back_in_time(rooms: Rooms) -> None:
    await granted(rooms, red=10, blue=10)
    one, two = await rooms.add(2, paying=True)
    async with rooms.db.duty() as tx:
        await ledger.hold(tx, [one])
        await ledger.hold(tx, [two])
        await ledger.capture(tx, one, 1)
        whole = await ledger.page(tx, "red", job_id=0, before_id=None, limit=9)
        assert [entry.job_id for entry in whole] == [one.id, two.id, one.id, 0]
        assert await ledger.page(tx, "red", job_id=0, before_id=None, limit=2) == whole[:2]
        after = whole[1].id
        assert await ledger.page(tx, "red", job_id=0, before_id=after, limit=9) == whole[2:]
        mine = await ledger.page(tx, "red", job_id=one.id, before_id=None, limit=9)
        assert mine == [whole[0], whole[2]]


async def furnished(rooms: Rooms) -> list[Job]:
    """Of red: an ended job of 3 with 2 images; two alike that wait, an admitted, a running one."""
    await granted(rooms, red=20, blue=5, free=1)
    async with rooms.db.duty() as tx:
        await ledger.open_account(tx, "empty")
    ended = await rooms.running(paying=True, count=3)
    *waiting, canceled = await rooms.add(3, paying=True, count=2)
    [admitted] = await rooms.add(admitted=True, paying=True, count=1)
    running = await rooms.running(paying=True, count=4)
    [of_blue] = await rooms.add(team="blue", paying=True, count=3)
    free = await rooms.running(count=4)
    async with rooms.db.duty() as tx:
        await ledger.hold(tx, [ended, *waiting, canceled, admitted, running, of_blue])
        for job, index in ((ended, 1), (ended, 3), (running, 2)):
            await jobs.count_image(tx, job.id, done=1)
            await ledger.capture(tx, job, index)
        await jobs.count_image(tx, free.id, done=1)
        await ledger.settle(tx, await jobs.cancel(tx, [ended.id, canceled.id], confirm=60.0))
    return [ended, *waiting, canceled, admitted, running, of_blue, free]


RED = AccountFigures(
    team="red",
    granted=20,
    available=9,
    held=9,
    captured=2,
    grants=20,
    holds=14,
    captures=3,
    releases=3,
    live_held=9,
    live_done=1,
)


async def test_the_figures_of_accounts_come_page_by_page(rooms: Rooms) -> None:
    await furnished(rooms)
    async with rooms.db.read_all() as tx:
        blue, empty, free, red = await credit_checks.accounts(tx, "", 9)
        assert red == RED
        assert blue == AccountFigures("blue", 5, 2, 3, 0, 5, 3, 0, 0, 3, 0)
        assert free == AccountFigures("free", 1, 1, 0, 0, 1, 0, 0, 0, 0, 0)
        assert empty == AccountFigures("empty", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        assert await credit_checks.accounts(tx, "", 2) == [blue, empty]
        assert await credit_checks.accounts(tx, "free", 2) == [red]
        assert await credit_checks.accounts(tx, "red", 2) == []


async def test_the_figures_of_jobs_come_page_by_page(rooms: Rooms) -> None:
    ended, one, two, canceled, admitted, running, of_blue, free = await furnished(rooms)
    [unheld] = await rooms.add(paying=True)  # and nothing of it in the ledger
    async with rooms.db.read_all() as tx:
        found, last = await credit_checks.jobs(tx, 0, 6)
        assert found == [
            JobFigures(ended.id, "red", True, 3, 2, 3, 1, 3, 2, 1),  # noqa: FBT003
            JobFigures(one.id, "red", False, 2, 0, 2, None, 2, 0, 0),  # noqa: FBT003
            JobFigures(two.id, "red", False, 2, 0, 2, None, 2, 0, 0),  # noqa: FBT003
            JobFigures(canceled.id, "red", True, 2, 0, 2, 2, 2, 0, 2),  # noqa: FBT003
            JobFigures(admitted.id, "red", False, 1, 0, 1, None, 1, 0, 0),  # noqa: FBT003
            JobFigures(running.id, "red", False, 4, 1, 4, None, 4, 1, 0),  # noqa: FBT003
        ]
        assert last == running.id
        assert await credit_checks.jobs(tx, 0, 1) == (found[:1], ended.id)
        assert await credit_checks.jobs(tx, ended.id, 2) == (found[1:3], two.id)
        beyond, last = await credit_checks.jobs(tx, of_blue.id, 9)
        assert beyond == [
            JobFigures(unheld.id, "red", False, 1, 0, 1, None, 0, 0, 0)  # noqa: FBT003
        ], "a job without a hold is passed over, one without an entry is not"
        assert (last, free.id < unheld.id) == (unheld.id, True)
        assert await credit_checks.jobs(tx, unheld.id, 9) == ([], None)
