"""Calls to other services: one channel, service tokens, deadlines, typed errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from libs.common import status

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name, what one try to connect may take; who is refused is told at once all the
    # same. A server that stands still for a moment is none that is away.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),  # retries are ours: they must know what is idempotent
)


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM files of a client; certificate and key only for mTLS."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files."""
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(),
            self.key.read_bytes() if self.key else None,
            self.certificate.read_bytes() if self.certificate else None,
        )


def open_channel(target: str, tls: ClientTls | None = None) -> grpc.aio.Channel:
    """A channel to `host:port`; connects when first used, and again after faults."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target, tls.credentials(), options=CHANNEL_OPTIONS)


class RpcClient:
    """Makes calls on one channel with a token, and raises typed errors.

    Args:
        channel: owned by this client; closed with it.
        token: gives the bearer token for each call.
    """

    def __init__(self, channel: grpc.aio.Channel, token: Callable[[], str]) -> None:
        self.channel = channel
        self._token = token

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token()}"),)

    async def unary(self, method: Any, request: Any, *, timeout_seconds: float) -> Any:
        """One answer to one request, or to a stream of requests; raises ContentshopError."""
        try:
            return await method(request, timeout=timeout_seconds, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from None

    async def stream(
        self, method: Any, request: Any, *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """The answers to one request; the call is cancelled when the iterator is closed."""
        call = method(request, timeout=timeout_seconds, metadata=self._metadata())
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from None
        finally:
            call.cancel()

    def ready(self) -> bool:
        """Whether the channel is connected; asks it to connect when it is not."""
        return self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Ends calls and the connection."""
        with suppress(grpc.aio.AioRpcError):
            await self.channel.close()
