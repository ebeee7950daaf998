"""The server itself: faults, places, streams, health, idle connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from contentshop.enqueue.v1 import (
    enqueue_pb2,
    enqueue_pb2_grpc,
    execution_pb2_grpc,
    job_pb2,
)
from libs.common.auth import Authenticator, SharedSecret
from libs.common.clock import SystemClock
from libs.common.errors import FailedPreconditionError
from libs.common.grpc_client import open_channel
from libs.common.grpc_server import GrpcServer, ServerLimits
from services.enqueue.servicer import EnqueueServicer, ExecutionServicer
from tests.integration.enqueue.front_door import (
    ENQUEUE,
    EXECUTION,
    answer,
    claim,
    get_job,
    headers_for,
    refusal,
    status_of,
)
from tests.integration.enqueue.house import SECRET, USER_SECRET, open_house
from tests.support.databases import sqlite_database
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer

GET, WATCH = f"{ENQUEUE}GetJob", f"{ENQUEUE}WatchJob"
LIST, CANCEL = f"{ENQUEUE}ListJobs", f"{ENQUEUE}CancelJob"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class OwnError(FailedPreconditionError):
    """A typed error that the table of codes does not name."""


class Faulty(EnqueueServicer):
    """Fails in every way; ListJobs waits until it is let go; WatchJob never ends."""

    def __init__(self) -> None:
        self.waiting = 0
        self.go = asyncio.Event()

    async def GetJob(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - gRPC's shape
        raise RuntimeError("the secret of /etc/passwd")

    async def CancelJob(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - gRPC's shape
        raise asyncio.CancelledError

    async def EnqueueEdit(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - gRPC's shape
        raise OwnError("not now", reason="NOT_NOW")

    async def ListJobs(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - gRPC's shape
        self.waiting += 1
        await self.go.wait()
        return enqueue_pb2.ListJobsResponse()

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ARG002, N802 - gRPC's shape
        if request.after_sequence == 1:
            raise RuntimeError("the secret of /etc/passwd")
        yield enqueue_pb2.WatchJobResponse(sequence=1)
        if request.after_sequence == 2:
            raise asyncio.CancelledError
        while request.after_sequence == 3:  # faster than its reader
            yield enqueue_pb2.WatchJobResponse(job=job_pb2.Job(lane="x" * 100_000))
        await self.go.wait()


@pytest.fixture
async def faulty() -> AsyncIterator[tuple[Faulty, GrpcServer, grpc.aio.Channel]]:
    """A server of Faulty, with two places for calls and two for streams."""
    servicer = Faulty()

    def register(server: grpc.aio.Server) -> None:
        enqueue_pb2_grpc.add_EnqueueServiceServicer_to_server(servicer, server)
        # Registered, but not among the services: nobody said who may call it.
        unlisted: Any = ExecutionServicer(None, None, None)  # type: ignore[arg-type]  # is not called
        execution_pb2_grpc.add_ExecutionServiceServicer_to_server(unlisted, server)

    server = GrpcServer(
        services=["contentshop.enqueue.v1.EnqueueService"],
        register=register,
        authenticator=Authenticator(
            service="enqueue",
            user_keys=SharedSecret(USER_SECRET),
            user_issuer="contentshop",
            service_secret=SECRET,
            clock=SystemClock(),
        ),
        address="127.0.0.1:0",
        limits=ServerLimits(max_unary=2, max_streams_per_team=2),
        grace_seconds=0.1,
    )
    await server.start()
    channel = open_channel(f"127.0.0.1:{server.port}")
    yield servicer, server, channel
    servicer.go.set()
    await channel.close()
    await server.stop()


async def test_a_fault_of_ours_is_internal_without_its_text(faulty: Any) -> None:
    _, server, channel = faulty
    watch = enqueue_pb2.WatchJobRequest(after_sequence=1).SerializeToString()
    for method, body in ((GET, b""), (CANCEL, b""), (WATCH, watch)):
        got = await refusal(channel, method, body, headers_for(method))
        assert (got.code, got.reason, got.message) == ("INTERNAL", "INTERNAL", "internal error")
    stray = _watch(channel, 2)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async with asyncio.timeout(30):
            [message async for message in stray]
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert server.interceptor.open_streams == 0


async def test_a_refined_error_has_the_code_of_its_class(faulty: Any) -> None:
    method = f"{ENQUEUE}EnqueueEdit"
    got = await refusal(faulty[2], method, b"", headers_for(method))
    assert (got.code, got.reason) == ("FAILED_PRECONDITION", "NOT_NOW")


async def test_a_service_without_a_rule_is_closed(faulty: Any) -> None:
    method = f"{EXECUTION}ClaimJob"
    for headers in ((), headers_for(method)):
        error = await status_of(faulty[2], method, claim(), headers)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert error.details() == "Method not found!"


async def test_calls_beyond_the_places_are_told_to_come_back(faulty: Any) -> None:
    servicer, _, channel = faulty
    async with asyncio.TaskGroup() as group:
        held = [group.create_task(answer(channel, LIST, b"", headers_for(LIST))) for _ in "ab"]
        await eventually(lambda: servicer.waiting == 2)
        got = await refusal(channel, LIST, b"", headers_for(LIST))
        assert (got.code, got.reason) == ("RESOURCE_EXHAUSTED", "SERVER_BUSY")
        held[0].cancel()
        await eventually(lambda: _has_place(channel))
        servicer.go.set()


async def _has_place(channel: grpc.aio.Channel) -> bool:
    return (await refusal(channel, GET, get_job(), headers_for(GET))).reason == "INTERNAL"


def _watch(channel: grpc.aio.Channel, after: int = 0, team: str = "red") -> Any:
    many: Any = channel.unary_stream(WATCH)
    request = enqueue_pb2.WatchJobRequest(job_id=1, after_sequence=after)
    return many(request.SerializeToString(), metadata=tuple(headers_for(WATCH, team)))


async def test_a_team_has_so_many_streams(faulty: Any) -> None:
    _, server, channel = faulty
    streams = [_watch(channel), _watch(channel)]
    for stream in streams:
        await stream.read()
    got = await refusal(channel, WATCH, b"", headers_for(WATCH))
    assert (got.code, got.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS")
    other = _watch(channel, team="blue")
    await other.read()  # another team has its own
    for stream in (*streams, other):
        stream.cancel()
    await eventually(lambda: server.interceptor.open_streams == 0)


async def test_a_stream_that_is_left_leaves_no_place_held_and_is_no_fault(faulty: Any) -> None:
    with capture_logs() as logs:
        await _leave_streams(faulty)
    assert not [line for line in logs if line["log_level"] == "error"]


async def _leave_streams(faulty: Any) -> None:
    _, server, channel = faulty
    for after in (0, 3):  # waiting for news; writing to a reader that does not read
        for _ in range(10):
            stream = _watch(channel, after)
            await stream.read()
            stream.cancel()
            await eventually(lambda: server.interceptor.open_streams == 0)
    streams = [_watch(channel, 3) for _ in "ab"]
    for stream in streams:
        stream.cancel()  # before any answer
    await eventually(lambda: server.interceptor.open_streams == 0)
    lost = open_channel(f"127.0.0.1:{server.port}")
    for after in (0, 3):
        await _watch(lost, after).read()
    await lost.close()
    await eventually(lambda: server.interceptor.open_streams == 0)


async def test_health_and_reflection_need_no_token(tmp_path: Path) -> None:
    async with open_house(sqlite_database("enqueue", tmp_path)) as house:
        channel = open_channel(f"127.0.0.1:{house.app.port}")
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "contentshop.enqueue.v1.EnqueueService"):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (await health.Check(request)).status == SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        stream = reflection.ServerReflectionInfo(iter([question]))
        names = {s.name for s in (await stream.read()).list_services_response.service}
        assert "contentshop.enqueue.v1.ExecutionService" in names
        await channel.close()


async def test_reflection_can_be_off(tmp_path: Path) -> None:
    async with open_house(sqlite_database("enqueue", tmp_path), REFLECTION="no") as house:
        channel = open_channel(f"127.0.0.1:{house.app.port}")
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        error = await status_of(channel, method)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        await channel.close()


@pytest.mark.real
async def test_health_follows_the_database(
    postgres_server: PostgresServer, postgres_templates: Any
) -> None:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(postgres_templates.database("enqueue")))
        channel = open_channel(f"127.0.0.1:{house.app.port}")
        stack.push_async_callback(channel.close)
        health = health_pb2_grpc.HealthStub(channel)

        async def says(status: Any) -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=30)
            return bool(answer.status == status)

        await eventually(lambda: says(SERVING))
        postgres_server.pause()
        try:
            await eventually(lambda: says(NOT_SERVING), timeout_seconds=30)
        finally:
            postgres_server.resume()
        await eventually(lambda: says(SERVING), timeout_seconds=30)


async def test_silent_connections_are_closed_and_stop_nobody(tmp_path: Path) -> None:
    async with open_house(sqlite_database("enqueue", tmp_path)) as house:
        address = ("127.0.0.1", house.app.port)
        idle = [socket.create_connection(address, timeout=10) for _ in range(500)]
        try:
            async with asyncio.timeout(10):
                assert (await house.team().generate()).id
            for one in idle:
                one.setblocking(False)  # noqa: FBT003 - the socket's own argument
            await eventually(
                lambda: all(_is_closed(one) for one in idle),
                timeout_seconds=60,
                what="500 sockets closed",
            )
        finally:
            for one in idle:
                one.close()


def _is_closed(one: socket.socket) -> bool:
    """Whether the other side has ended the connection; what it said before is read away."""
    try:
        while one.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


async def test_a_client_that_pings_too_much_is_sent_away(tmp_path: Path) -> None:
    settings, ping = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), bytes([0, 0, 8, 6, 0, 0, 0, 0, 0])
    async with open_house(sqlite_database("enqueue", tmp_path)) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.app.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        writer.write((ping + bytes(8)) * 10)
        async with asyncio.timeout(10):
            heard = await reader.read(-1)
        assert b"too_many_pings" in heard  # GOAWAY ENHANCE_YOUR_CALM
        writer.close()
        assert (await house.team().generate()).id
