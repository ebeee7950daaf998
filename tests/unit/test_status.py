"""Typed errors over a real server and client: what goes in comes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from libs.common import errors, status
from libs.common.errors import FieldViolation

ERRORS: list[errors.ContentshopError] = [
    errors.InvalidArgumentError(
        "2 fields are wrong",
        reason="BAD",
        metadata={"maxBytes": "5"},
        violations=[FieldViolation("a[1].b", "is wrong", "WRONG"), FieldViolation("c", "no")],
    ),
    errors.UnauthenticatedError("no", reason="TOKEN_EXPIRED"),
    errors.PermissionDeniedError("no", reason="SERVICE_ONLY"),
    errors.NotFoundError("job"),
    errors.AlreadyExistsError("no", reason="IDEMPOTENCY_KEY_REUSED"),
    errors.FailedPreconditionError("no", reason="JOB_TERMINAL", metadata={"state": "FAILED"}),
    errors.LeaseLostError("the lease is lost"),
    errors.AbortedError("no", retry_after_seconds=0.1),
    errors.ResourceExhaustedError("no", retry_after_seconds=1.5, quota_subject="calls"),
    errors.UnavailableError("no", retry_after_seconds=2.0),
    errors.DeadlineExceededError("no", reason="UPLOAD_STALLED"),
    errors.DataLossError("no"),
    errors.UnimplementedError("no"),
    errors.InternalError("no"),
]


class Raising(grpc.GenericRpcHandler):
    """Ends every call with the error it is set to."""

    error: errors.ContentshopError

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:  # noqa: ARG002 - gRPC's shape
        async def refuse(raw: bytes, context: Any) -> None:  # noqa: ARG001 - gRPC's shape
            trailers = status.trailing_metadata(self.error)
            await context.abort(status.code_of(self.error), self.error.message, trailers)

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture(scope="module")
async def over_the_wire() -> AsyncIterator[Any]:
    """What a client makes of an error that a server raised."""
    handler = Raising()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    async def send(error: errors.ContentshopError) -> errors.ContentshopError:
        handler.error = error
        call: Any = channel.unary_unary("/a/b")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", timeout=30)
        return status.from_rpc_error(raised.value)

    yield send
    await channel.close()
    await server.stop(None)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_comes_out_as_it_went_in(
    over_the_wire: Any, error: errors.ContentshopError
) -> None:
    back = await over_the_wire(error)
    assert type(back) is type(error)
    assert vars(back) == vars(error)


def test_every_typed_error_is_tried() -> None:
    known = {cls for cls in vars(errors).values() if _is_typed(cls)}
    assert {type(error) for error in ERRORS} == known


def _is_typed(cls: Any) -> bool:
    base = errors.ContentshopError
    return isinstance(cls, type) and issubclass(cls, base) and cls is not base


class RefinedError(errors.NotFoundError):
    """Of a service's own making."""


def test_a_class_of_a_services_own_has_the_code_of_what_it_refines() -> None:
    assert status.code_of(RefinedError("job")) is grpc.StatusCode.NOT_FOUND
    assert status.code_of(errors.ContentshopError("no")) is grpc.StatusCode.INTERNAL


async def test_very_many_violations_still_reach_the_client(over_the_wire: Any) -> None:
    many = [FieldViolation(f"field[{n}]", "is wrong " * 10) for n in range(1000)]
    back = await over_the_wire(errors.InvalidArgumentError("1000 fields", violations=many))
    assert isinstance(back, errors.InvalidArgumentError)
    assert 5 < len(back.violations) < 1000
    huge = [FieldViolation("x" * 5000, "is wrong")]
    back = await over_the_wire(errors.InvalidArgumentError("one field", violations=huge))
    assert len(back.violations) == 1


async def test_a_call_that_reached_nobody_is_unavailable_and_names_no_address() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        call: Any = channel.unary_unary("/a/b")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", timeout=30)
    error = status.from_rpc_error(raised.value)
    assert isinstance(error, errors.UnavailableError)
    assert error.message == "the call ended with UNAVAILABLE"
