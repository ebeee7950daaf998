"""Components start in order and stop in reverse; duties outlive their faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from libs.common.backoff import Backoff
from libs.common.ids import SystemIds
from libs.common.lifecycle import Components, Duty, Owned, TaskOwner
from tests.support.eventually import eventually

QUICK = Backoff(first_seconds=0.001, max_seconds=0.002)


class Part:
    """Writes down what is done to it."""

    def __init__(self, name: str, said: list[str], fails: str = "") -> None:
        self.name = name
        self._said = said
        self._fails = fails

    async def start(self) -> None:
        self._said.append(f"start {self.name}")
        if self._fails == "start":
            raise OSError("the port is taken")

    async def stop(self) -> None:
        self._said.append(f"stop {self.name}")
        if self._fails == "stop":
            raise OSError("no")


async def test_order_of_start_and_stop() -> None:
    said: list[str] = []
    whole = Components([Part("a", said), Part("b", said, "stop"), Part("c", said)])
    await whole.start()
    await whole.stop()
    # One that fails to stop keeps none of the others.
    assert said == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    await whole.stop()
    assert len(said) == 6, "each is stopped once"


async def test_a_failing_start_stops_what_was_started() -> None:
    said: list[str] = []
    whole = Components([Part("a", said), Part("b", said, "start"), Part("c", said)])
    with pytest.raises(OSError, match="taken"):
        await whole.start()
    assert said == ["start a", "start b", "stop b", "stop a"]


async def test_what_is_closed_is_a_component_too() -> None:
    class Closable:
        closed = False

        async def close(self) -> None:
            self.closed = True

    thing = Closable()
    owned = Owned(thing)
    await owned.start()
    assert not thing.closed
    await owned.stop()
    assert thing.closed


async def test_no_task_outlives_its_owner() -> None:
    owner = TaskOwner()
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waiting")

    async def fail() -> None:
        raise OSError("no")

    owner.spawn(wait(), name="waits")
    failed = owner.spawn(fail(), name="fails")
    await asyncio.wait({failed})
    await owner.close()
    assert ended == ["waiting"]


class Rounds:
    """A duty's work: counts, and does what it is told in each round."""

    def __init__(self) -> None:
        self.done = 0
        self.more = 0
        self.fault: BaseException | None = None

    async def __call__(self) -> bool:
        self.done += 1
        if self.fault is not None:
            raise self.fault
        self.more -= 1
        return self.more > 0


Begin = Callable[[float], Awaitable[tuple[Duty, Rounds]]]


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    duties: list[Duty] = []

    async def start(floor_seconds: float) -> tuple[Duty, Rounds]:
        rounds = Rounds()
        duty = Duty("d", rounds, floor_seconds=floor_seconds, ids=SystemIds(), backoff=QUICK)
        duties.append(duty)
        await duty.start()
        await eventually(lambda: rounds.done >= 1)
        return duty, rounds

    yield start
    for duty in duties:
        await duty.stop()


async def test_a_duty_begins_at_once_and_comes_back_by_itself(begin: Begin) -> None:
    _, rounds = await begin(0.001)
    await eventually(lambda: rounds.done >= 3)


async def test_a_duty_is_woken_and_goes_on_while_there_is_more(begin: Begin) -> None:
    duty, rounds = await begin(3600)
    rounds.more = 5
    duty.wake()
    await eventually(lambda: rounds.done == 6)


@pytest.mark.parametrize("fault", [OSError("no"), asyncio.CancelledError(), TimeoutError()])
async def test_a_duty_outlives_its_faults(begin: Begin, fault: BaseException) -> None:
    duty, rounds = await begin(3600)
    rounds.fault = fault
    duty.wake()
    await eventually(lambda: duty.failures >= 3)
    rounds.fault = None
    await eventually(lambda: duty.failures == 0)
    before = rounds.done
    duty.wake()
    await eventually(lambda: rounds.done > before)


async def test_a_duty_stops_in_the_middle_of_a_round() -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    async def work() -> bool:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return False

    duty = Duty("d", work, floor_seconds=1, ids=SystemIds())
    await duty.start()
    await entered.wait()
    async with asyncio.timeout(30):
        await duty.stop()
    assert ended.is_set()


async def test_who_loses_a_cancellation_is_cancelled_again() -> None:
    swallowed = asyncio.Event()

    async def loses_one() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.get_running_loop().create_future()

    owner = TaskOwner(cancel_again_seconds=0.01)
    task = owner.spawn(loses_one(), name="loses one")
    await asyncio.sleep(0)
    await owner.close()
    assert swallowed.is_set()
    assert task.cancelled()
