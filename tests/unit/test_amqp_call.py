"""An AMQP call ends in its result, in LinkLostError, or in the cancellation that was asked for."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.amqp_link import LinkLostError, amqp_call


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def library() -> str:
        try:
            return await answer
        except asyncio.CancelledError:  # what wait_for of Python 3.11 does
            return "the answer"

    async def caller() -> None:
        await amqp_call(library())
        pytest.fail("went on after its cancellation")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(caller())
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


async def test_a_cancellation_nobody_asked_for_is_a_lost_link() -> None:
    rejected: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    rejected.cancel()
    with pytest.raises(LinkLostError):
        await amqp_call(rejected)


async def test_clean_up_after_a_cancellation_comes_to_its_end() -> None:
    async def answers() -> str:
        await asyncio.sleep(0)
        return "closed"

    said: list[str] = []

    async def caller() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            said.append(await amqp_call(answers()))

    async with asyncio.TaskGroup() as group:
        task = group.create_task(caller())
        await asyncio.sleep(0)
        task.cancel()
    assert said == ["closed"]
