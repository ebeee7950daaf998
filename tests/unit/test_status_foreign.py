"""What a failed call means when its status is not one of ours."""

from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from libs.common import errors, status


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED]
)
def test_a_status_that_is_not_ours_leaves_the_result_open(code: grpc.StatusCode) -> None:
    foreign = AioRpcError(code, Metadata(), Metadata(), "Internal error from Core")
    assert isinstance(status.from_rpc_error(foreign), errors.UnavailableError)


def test_our_own_internal_stays_internal() -> None:
    trailers = Metadata(*status.trailing_metadata(errors.InternalError("internal error")))
    ours = AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), trailers, "internal error")
    assert isinstance(status.from_rpc_error(ours), errors.InternalError)
