"""Calls between nodes: the real gateways on one side, the real doors on the other, no gRPC between.

A call takes a moment, may be lost on its way, and its answer on the way back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from libs.common.auth import Caller, set_current_caller
from libs.common.errors import ContentshopError, DeadlineExceededError, UnavailableError
from libs.common.grpc_client import RpcClient
from libs.common.service_app import ServiceApp
from tests.simulation.loop import Node

SLOWEST_SECONDS = 0.05
LOST = 0.01


class Server:
    """A node with doors: servicers by the full names of their services."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.doors: dict[str, Any] = {}
        self.faults: list[BaseException] = []


def doors_of(app: ServiceApp) -> dict[str, Any]:
    """The methods of a service's servicers, by the full names of their contracts."""
    rack = _Rack()
    app.server._register(cast("Any", rack))
    return rack.doors


class _Rack:
    """Stands where servicers look for a server of gRPC."""

    def __init__(self) -> None:
        self.doors: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same once more."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Whichever of the shapes a method has."""
        shapes = ("unary_unary", "unary_stream", "stream_unary")
        self.doors[service] = SimpleNamespace(
            **{
                name: next(filter(None, (getattr(handler, shape) for shape in shapes)))
                for name, handler in handlers.items()
            }
        )


class Wires:
    """A channel as a stub wants one: from somebody to a server.

    Attributes:
        faulty: calls and answers get lost.
    """

    faulty = True

    def __init__(self, random: Random, server: Server, caller: Caller) -> None:
        self._random = random
        self._server = server
        self._caller = caller

    def client(self) -> RpcClient:
        """What gateways take."""
        return RpcClient(cast("Any", self), lambda: "")

    def unary_unary(self, path: str, *_args: Any, **_rest: Any) -> Callable[..., Any]:
        """As a channel of gRPC."""

        async def call(request: Any, **options: Any) -> Any:
            return await self._call(path, request, options["timeout"])

        return call

    def stream_unary(self, path: str, *_args: Any, **_rest: Any) -> Callable[..., Any]:
        """As a channel of gRPC."""

        async def call(request: Any, **options: Any) -> Any:
            return await self._call(path, self._sent(request), options["timeout"])

        return call

    async def _sent(self, parts: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """One part after the other, as they come over the network."""
        async for part in parts:
            await asyncio.sleep(self._random.uniform(0, SLOWEST_SECONDS))
            yield part

    def unary_stream(self, path: str, *_args: Any, **_rest: Any) -> Callable[..., Any]:
        """As a channel of gRPC."""

        def call(request: Any, **_options: Any) -> _Answers:
            return _Answers(self, path, request)

        return call

    async def close(self) -> None:
        """Nothing to close."""

    def door(self, path: str) -> Any:
        """The method of a call; UnavailableError where nobody is there."""
        _, service, method = path.split("/")
        if not self._server.node.up:
            raise UnavailableError("nobody is there")
        return getattr(self._server.doors[service], method)

    def serve(self, work: Any) -> asyncio.Task[Any]:
        """In the server's process, as this caller."""

        async def served() -> Any:
            set_current_caller(self._caller)
            try:
                return await work
            except ContentshopError:
                raise
            except Exception as error:
                self._server.faults.append(error)
                raise

        return self._server.node.spawn(served(), name="call")

    async def way(self) -> None:
        """One way over the network."""
        await asyncio.sleep(self._random.uniform(0, SLOWEST_SECONDS))
        if Wires.faulty and self._random.random() < LOST:
            raise UnavailableError("lost on the way")

    async def _call(self, path: str, request: Any, timeout_seconds: float) -> Any:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.way()
                task = self.serve(self.door(path)(request, None))
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError:
                    task.cancel()
                    raise
                if task.cancelled():
                    raise UnavailableError("the server has died")
                task.exception()  # seen
                await self.way()
                return task.result()
        except TimeoutError:
            raise DeadlineExceededError("no answer in time") from None


class _Answers:
    """A stream of answers, pumped in the server's process."""

    def __init__(self, wires: Wires, path: str, request: Any) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._pump: asyncio.Task[Any] | None = None
        self._wires = wires
        self._path = path
        self._request = request

    def cancel(self) -> None:
        """The client goes."""
        if self._pump is not None:
            self._pump.cancel()

    async def __aiter__(self) -> AsyncIterator[Any]:
        await self._wires.way()
        answers = self._wires.door(self._path)(self._request, None)

        async def pump() -> None:
            async for answer in answers:
                self._queue.put_nowait(answer)

        self._pump = self._wires.serve(pump())
        self._pump.add_done_callback(self._over, context=copy_context())
        while not isinstance(answer := await self._queue.get(), BaseException):
            yield answer
        if not isinstance(answer, StopAsyncIteration):
            raise answer

    def _over(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._queue.put_nowait(UnavailableError("the server has died"))
        else:
            self._queue.put_nowait(task.exception() or StopAsyncIteration())
