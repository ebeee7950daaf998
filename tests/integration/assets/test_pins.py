"""Pins: a file in use stays, in whatever order the news of its jobs comes."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import backend_pb2
from contentshop.enqueue.v1 import job_pb2
from libs.common.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
)
from services.assets import tables
from tests.support.assets_house import (
    AssetsHouse,
    Backend,
    MakeHouse,
    Team,
    all_of,
    reason_of,
)
from tests.support.eventually import eventually


async def test_a_file_in_use_is_not_deleted(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    file = await red.upload()
    await backend.resolve("red", file.id, pin_token="pin-1")
    with pytest.raises(FailedPreconditionError) as caught:
        await red.delete(file.id)
    assert caught.value.reason == "FILE_IN_USE"
    await backend.resolve("red", file.id, pin_token="pin-2")
    await house.enqueued("red", 1, "pin-1")
    await house.ended("red", 1, "pin-1")
    assert await reason_of(red.delete(file.id)) == "FILE_IN_USE"  # by the other job
    await house.ended("red", 2, "pin-2", state=job_pb2.JOB_STATE_CANCELED)
    await red.delete(file.id)


async def test_a_pin_expires_unless_its_job_is_known(make_house: MakeHouse) -> None:
    house = await make_house(pin_seconds=0.2)
    red, backend = house.team("red"), house.backend()
    one, two = await red.upload(), await red.upload()
    await backend.resolve("red", one.id, pin_token="pin-1")
    await backend.resolve("red", two.id, pin_token="pin-2")
    await house.enqueued("red", 1, "pin-1")
    await backend.resolve("red", one.id, pin_token="pin-1")  # the worker, later: it still lasts
    await house.enqueued("blue", 9, "pin-2")  # another team's pin of that name

    async def deleted() -> bool:
        try:
            await red.delete(two.id)
        except FailedPreconditionError:
            return False
        return True

    await eventually(deleted)
    assert await reason_of(red.delete(one.id)) == "FILE_IN_USE"
    # A pin that expired comes back to life when the news of its job is late.
    three = await red.upload()
    await backend.resolve("red", three.id, pin_token="pin-3")
    await asyncio.sleep(0.25)
    await house.enqueued("red", 3, "pin-3")
    assert await reason_of(red.delete(three.id)) == "FILE_IN_USE"


async def test_a_call_repeated_before_it_is_answered_pins_once(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    """The two come into one transaction, and name the same rows."""
    file = await red.upload()
    calls = [backend.resolve("red", file.id, pin_token="pin-1") for _ in range(8)]
    answers = await asyncio.gather(*calls)
    assert [images[0].file_id for images in answers] == [file.id] * 8
    await house.enqueued("red", 1, "pin-1")
    assert await reason_of(red.delete(file.id)) == "FILE_IN_USE"
    await house.ended("red", 1, "pin-1")
    await red.delete(file.id)


async def test_each_job_of_many_pins_what_it_needs(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    shared, mine, other = await red.upload(), await red.upload(), await red.upload()
    pins = [
        backend_pb2.JobPins(pin_token="batch.1", refs=[0, 1]),
        backend_pb2.JobPins(pin_token="batch.2", refs=[0, 2]),
    ]
    await backend.resolve("red", shared.id, mine.id, other.id, pins=pins)
    await house.enqueued("red", 1, "batch.1")
    await house.enqueued("red", 2, "batch.2")
    await house.ended("red", 1, "batch.1")
    assert await reason_of(red.delete(shared.id)) == "FILE_IN_USE"  # by the other job
    assert await reason_of(red.delete(other.id)) == "FILE_IN_USE"
    await red.delete(mine.id)
    await house.ended("red", 2, "batch.2")
    await red.delete(shared.id)
    await red.delete(other.id)


async def test_pins_of_many_jobs_are_checked(red: Team, backend: Backend) -> None:
    file = await red.upload()
    one = backend_pb2.JobPins(pin_token="a", refs=[0])
    for pins, field in (
        ([one, one], "pins[1].pin_token"),
        ([backend_pb2.JobPins(refs=[0])], "pins[0].pin_token"),
        ([backend_pb2.JobPins(pin_token="a", refs=[1])], "pins[0].refs"),
        ([backend_pb2.JobPins(pin_token="a", refs=[-1])], "pins[0].refs"),
        ([backend_pb2.JobPins(pin_token="a", refs=[0] * 101)], "pins[0].refs"),
        ([one] * 101, "pins"),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            await backend.resolve("red", file.id, pins=pins)
        assert [v.field for v in caught.value.violations] == [field]
    with pytest.raises(InvalidArgumentError):
        await backend.resolve("red", file.id, pin_token="b", pins=[one])


async def test_pins_that_expired_long_ago_are_forgotten(house: AssetsHouse, red: Team) -> None:
    file = await red.upload()
    async with house.db.duty() as tx:
        for token, seconds in (("old", -2 * 24 * 3600.0), ("late", -60.0), ("new", 60.0)):
            await tx.execute(
                sa.insert(tables.pins).values(
                    team="red", pin_token=token, file_id=file.id, expires_at=tx.after(seconds)
                )
            )

    async def forgotten() -> bool:
        return await house.count(tables.pins) == 2

    await eventually(forgotten)
    assert await house.count(tables.pins, tables.pins.c.pin_token == "old") == 0


async def test_a_pin_and_a_deletion_never_both_win(red: Team, backend: Backend) -> None:
    outcomes = set()
    for turn in range(25):
        file = await red.upload()
        pinned, deleted = await all_of(
            backend.resolve("red", file.id, pin_token=f"pin-{turn}"), red.delete(file.id)
        )
        outcomes.add((type(pinned), type(deleted)))
    assert outcomes <= {(list, FailedPreconditionError), (InvalidArgumentError, type(None))}


async def test_the_end_of_a_job_may_be_heard_first(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    file = await red.upload()
    await backend.resolve("red", file.id, pin_token="pin-1")
    await house.ended("red", 1, "pin-1")
    await house.enqueued("red", 1, "pin-1")
    assert await house.count(tables.pins) == 0
    # Even where the pin came back in between.
    await backend.resolve("red", file.id, pin_token="pin-1")
    await house.enqueued("red", 1, "pin-1")
    assert await house.count(tables.pins) == 0
    await red.delete(file.id)


async def test_pins_that_are_asked_for_together_are_kept_apart(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    blue = house.team("blue")
    mine, theirs = await red.upload(), await blue.upload()
    turns = range(12)
    answers = await all_of(
        *(backend.resolve("red", mine.id, pin_token=f"red-{n}") for n in turns),
        *(backend.resolve("blue", theirs.id, pin_token=f"blue-{n}") for n in turns),
        *(backend.resolve("red", mine.id, theirs.id, pin_token=f"bad-{n}") for n in turns),
    )
    found = [[image.file_id for image in answer] for answer in answers[:24]]
    assert found == [[mine.id]] * 12 + [[theirs.id]] * 12
    for error in answers[24:]:
        assert isinstance(error, InvalidArgumentError)
        assert [violation.field for violation in error.violations] == ["refs[1]"]
    pins = tables.pins.c
    assert await house.count(tables.pins) == 24
    assert await house.count(tables.pins, pins.team == "blue", pins.file_id == theirs.id) == 12
    # Half of the jobs have ended when all are said to be enqueued.
    await all_of(*(house.ended("red", n, "") for n in turns if n % 2 and n))
    await all_of(
        *(house.enqueued(team, n, f"{team}-{n}") for n in turns if n for team in ("red", "blue"))
    )
    lasting = pins.expires_at.is_(None)
    assert await house.count(tables.pins, lasting, pins.team == "red") == 5
    assert await house.count(tables.pins, lasting, pins.team == "blue") == 11
    assert await house.count(tables.pins) == 1 + 5 + 12
