# ruff: noqa: N802 - the names are gRPC's
"""A worker beside an enqueue of a later version: what it does not know does it no harm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs

from contentshop.enqueue.v1 import execution_pb2 as pb
from tests.fakes.worker_world import FakeEnqueue
from tests.support.eventually import eventually
from tests.support.worker_house import House, doorbell

LATER_ENUM = 99
LATER_FIELD = b"\xf8\x7c\x01"  # field 1999, varint 1

M = TypeVar("M", bound=Message)


def later(message: M) -> M:
    """With a field that this version has no name for."""
    message.MergeFromString(LATER_FIELD)
    return message


class LaterEnqueue(FakeEnqueue):
    """Says fields and enums of a version to come."""

    async def ClaimJob(self, request: pb.ClaimJobRequest, context: Any) -> pb.ClaimJobResponse:
        answer = await super().ClaimJob(request, context)
        facts = answer.spec
        facts.quality = facts.format = facts.prompt_strategy = LATER_ENUM  # type: ignore[assignment]
        later(facts)
        return later(answer)

    async def RenewLeases(
        self, request: pb.RenewLeasesRequest, context: Any
    ) -> pb.RenewLeasesResponse:
        return later(await super().RenewLeases(request, context))

    async def WatchWorker(
        self, request: pb.WatchWorkerRequest, context: Any
    ) -> AsyncIterator[pb.WatchWorkerResponse]:
        yield later(pb.WatchWorkerResponse())  # a command of another kind
        async for word in super().WatchWorker(request, context):
            yield later(word)

    async def FinishJob(self, request: pb.FinishJobRequest, context: Any) -> pb.FinishJobResponse:
        answer = await super().FinishJob(request, context)
        answer.state = LATER_ENUM  # type: ignore[assignment]
        return later(answer)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    house.enqueue = LaterEnqueue()
    await house.start()
    yield house
    await house.stop()


async def test_a_later_enqueue_is_understood(house: House) -> None:
    with capture_logs() as logs:
        app = await house.worker(renew_seconds=30.0)  # the time for one, too: none is late
        job = house.job(1, 2)
        await house.publish(doorbell(1) + LATER_FIELD)
        await house.until_state(job, "SUCCEEDED")

        async def has_none() -> bool:
            return not (await house.look(app)).running

        await eventually(has_none)
    assert [line for line in logs if line["log_level"] in {"warning", "error"}] == []
    # What it does not know is taken as the least there is.
    assert {request.quality for request in house.generator.requests} == {"fast"}
    assert {request.format for request in house.generator.requests} == {"png"}
