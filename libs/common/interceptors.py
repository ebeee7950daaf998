"""The one server interceptor: who is calling, may they, decode, serve, and errors by one table.

Transport limits come first, then who is calling, whether they may, and what they say. Requests
reach the handlers decoded here, not by gRPC: its own decoding comes before authentication, and
answers malformed bytes with an exception's text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from libs.common import auth, errors, status
from libs.common.call_rates import CallRates
from libs.common.logs import frames

log = structlog.get_logger()

SLOW_CALL_SECONDS = 1.0
DRAIN_SECONDS = 0.05
_OPEN_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

AccessRules = Mapping[str, Sequence[str]]
"""Full method name (`/package.Service/Method`) → the scopes of which a caller needs one."""


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of ours; health and reflection pass by.

    Args:
        authenticator: verifies the token.
        access: who may call what; a method without a rule is refused.
        request_types: full method name → request message class.
        max_unary: unary calls served at once; the next is told to come back.
        max_streams_per_team: response streams open at once for one caller's team.
        rates: calls per minute of team callers; None: no limit.
    """

    def __init__(
        self,
        *,
        authenticator: auth.Authenticator,
        access: AccessRules,
        request_types: Mapping[str, type[Message]],
        max_unary: int,
        max_streams_per_team: int,
        rates: CallRates | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._access = access
        self._request_types = request_types
        self._max_unary = max_unary
        self._max_streams = max_streams_per_team
        self._rates = rates
        self._unary_running = 0
        self._streams: dict[str, int] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler, wrapped; None (unknown method) is answered by gRPC itself."""
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.split("/")[1] in _OPEN_SERVICES:
            return cast("Handler | None", handler)
        if method not in self._request_types:
            # Registered and not listed: nobody said who may call it, so nobody may.
            log.error("rpc.unlisted", method=method)
            return None
        call = _Call(self, method, handler, handler_call_details.invocation_metadata or ())
        serializer = handler.response_serializer
        if handler.request_streaming and handler.response_streaming:
            raise NotImplementedError("no RPC of ours streams both ways")
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(call.stream_unary, None, serializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(call.unary_stream, None, serializer)
        return grpc.unary_unary_rpc_method_handler(call.unary_unary, None, serializer)

    def admit(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> auth.Caller:
        """The caller, verified and allowed; raises the typed refusal."""
        caller = self._authenticator.authenticate(metadata)
        auth.authorize(caller, self._access.get(method, ()))
        if self._rates is not None and caller.team:
            self._rates.take(caller.team)
        auth.set_current_caller(caller)
        return caller

    def decode(self, method: str, raw: bytes) -> Message:
        """The request of these bytes; raises InvalidArgumentError MALFORMED_MESSAGE."""
        message = self._request_types[method]()
        try:
            message.ParseFromString(raw)
        except (DecodeError, ValueError, UnicodeDecodeError):
            raise errors.InvalidArgumentError(
                "the message cannot be decoded", reason="MALFORMED_MESSAGE"
            ) from None
        return message

    @contextmanager
    def unary_place(self) -> Iterator[None]:
        """Holds one of the places for unary calls."""
        if self._unary_running >= self._max_unary:
            raise errors.ResourceExhaustedError(
                "the server is busy",
                reason="SERVER_BUSY",
                retry_after_seconds=1.0,
                quota_subject="concurrent calls",
            )
        self._unary_running += 1
        try:
            yield
        finally:
            self._unary_running -= 1

    def take_stream(self, key: str) -> None:
        """Takes one of a team's places for streams; TOO_MANY_STREAMS."""
        if self._streams.get(key, 0) >= self._max_streams:
            raise errors.ResourceExhaustedError(
                "too many open streams",
                reason="TOO_MANY_STREAMS",
                retry_after_seconds=5.0,
                quota_subject="open streams",
            )
        self._streams[key] = self._streams.get(key, 0) + 1

    def return_stream(self, key: str) -> None:
        """Gives a place back."""
        self._streams[key] -= 1
        if not self._streams[key]:
            del self._streams[key]

    @property
    def open_streams(self) -> int:
        """Response streams open just now, of all teams."""
        return sum(self._streams.values())


async def _drain(raws: AsyncIterator[bytes]) -> None:
    """Throws away what a client is sending, for a moment.

    A write of its that hangs when the answer comes makes grpc.aio clients lose the answer's
    details (seen in 9 of 40 uploads that are refused after the first chunks, else).
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in raws:
                pass


class _Call:
    """One method's wrapper for one call: the four shapes differ only in how bytes come and go."""

    __slots__ = ("_handler", "_metadata", "_method", "_server", "_started")

    def __init__(
        self,
        server: ServerInterceptor,
        method: str,
        handler: Any,
        metadata: Sequence[tuple[str, str | bytes]],
    ) -> None:
        self._server = server
        self._method = method
        self._handler = handler
        self._metadata = metadata
        self._started = time.monotonic()

    async def unary_unary(self, raw: bytes, context: Any) -> Any:
        try:
            with self._server.unary_place():
                self._server.admit(self._method, self._metadata)
                request = self._server.decode(self._method, raw)
                response = await self._handler.unary_unary(request, context)
        except BaseException as error:  # noqa: BLE001 - sorted in _refuse
            await self._refuse(error, context)
            raise
        self._done("OK")
        return response

    async def stream_unary(self, raws: AsyncIterator[bytes], context: Any) -> Any:
        try:
            self._server.admit(self._method, self._metadata)
            response = await self._handler.stream_unary(self._decoded(raws), context)
        except BaseException as error:  # noqa: BLE001 - sorted in _refuse
            if isinstance(error, errors.ContentshopError):
                await _drain(raws)
            await self._refuse(error, context)
            raise
        self._done("OK")
        return response

    async def _decoded(self, raws: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        async for raw in raws:
            yield self._server.decode(self._method, raw)

    async def unary_stream(self, raw: bytes, context: Any) -> AsyncIterator[Any]:
        try:
            # Thousands of streams wait here: what they hold is weighed (docs/PERFORMANCE.md).
            caller = self._server.admit(self._method, self._metadata)
            self._metadata = ()
            key = caller.team or caller.subject
            self._server.take_stream(key)
            try:
                request = self._server.decode(self._method, raw)
                async with aclosing(self._handler.unary_stream(request, context)) as responses:
                    async for response in responses:
                        yield response
                        del response
            finally:
                self._server.return_stream(key)
        except BaseException as error:  # noqa: BLE001 - sorted in _refuse
            await self._refuse(error, context)
            raise
        self._done("OK")

    async def _refuse(self, error: BaseException, context: Any) -> None:
        """Ends the call with the typed error's status; passes true cancellation on."""
        if isinstance(error, errors.ContentshopError):
            typed = error
        elif isinstance(error, GeneratorExit):
            # Whoever read has gone while a message was on its way: grpc.aio drops the stream
            # unclosed then, and the loop closes it in a task that nobody has canceled.
            self._done("CANCELLED")
            return
        elif isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if context.cancelled() or (task is not None and task.cancelling()):
                self._done("CANCELLED")
                return
            # A CancelledError that nobody asked for would leave the client hanging.
            typed = errors.InternalError("internal error")
            log.error("rpc.stray_cancel", method=self._method, exception=frames(error))
        elif isinstance(error, Exception):
            typed = errors.InternalError("internal error")
            name = type(error).__name__
            log.error("rpc.fault", method=self._method, error=name, exception=frames(error))
        else:
            return
        code = status.code_of(typed)
        self._done(code.name, reason=typed.reason)
        await context.abort(code, typed.message, status.trailing_metadata(typed))

    def _done(self, code: str, **facts: str) -> None:
        seconds = time.monotonic() - self._started
        slow = seconds > SLOW_CALL_SECONDS and not self._handler.response_streaming
        level = "info" if code not in ("OK", "CANCELLED") or slow else "debug"
        getattr(log, level)(
            "rpc.done", method=self._method, code=code, ms=round(seconds * 1000, 1), **facts
        )
