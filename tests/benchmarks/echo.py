"""The yardstick of gRPC: a bare grpc.aio server of bytes: `python -m tests.benchmarks.echo PORT`.

Echo answers what it got; Watch streams whatever Shout is given, to all watchers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from libs.common.grpc_server import SERVER_OPTIONS

SERVICE = "contentshop.bench.Echo"


class Shouting:
    """All watchers' mailboxes."""

    def __init__(self) -> None:
        self.mailboxes: set[asyncio.Queue[bytes]] = set()

    async def watch(self, _request: bytes, _context: Any) -> AsyncIterator[bytes]:
        mailbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.mailboxes.add(mailbox)
        try:
            yield b"here"
            while True:
                yield await mailbox.get()
        finally:
            self.mailboxes.discard(mailbox)

    async def shout(self, request: bytes, _context: Any) -> bytes:
        for mailbox in self.mailboxes:
            mailbox.put_nowait(request)
        return b""


async def echo(request: bytes, _context: Any) -> bytes:
    return request


async def serve(port: int) -> None:
    shouting = Shouting()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    handlers: dict[str, Any] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Shout": grpc.unary_unary_rpc_method_handler(shouting.shout),
        "Watch": grpc.unary_stream_rpc_method_handler(shouting.watch),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
