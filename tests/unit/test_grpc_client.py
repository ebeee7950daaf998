"""What a call is told of a server that does not answer."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from libs.common.errors import ContentshopError, DeadlineExceededError, UnavailableError
from libs.common.grpc_client import RpcClient, open_channel
from tests.support.ports import free_port


async def error_of_a_call(port: int, timeout_seconds: float) -> type[ContentshopError]:
    client = RpcClient(open_channel(f"127.0.0.1:{port}"), lambda: "token")
    method: Any = client.channel.unary_unary("/service/Method")
    with pytest.raises(ContentshopError) as caught:
        await client.unary(method, b"", timeout_seconds=timeout_seconds)
    await client.close()
    return caught.type


async def test_a_server_that_stands_still_is_not_taken_for_one_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as still:  # the kernel connects for it
        port = still.getsockname()[1]
        assert await error_of_a_call(port, timeout_seconds=1) is DeadlineExceededError


async def test_one_that_is_away_is_told_before_the_deadline() -> None:
    assert await error_of_a_call(free_port(), timeout_seconds=60) is UnavailableError
