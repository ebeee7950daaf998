"""What scenarios share: channels, tokens and the closed loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from libs.common.auth import mint_user_token, service_tokens
from libs.common.clock import SystemClock
from libs.common.grpc_client import CHANNEL_OPTIONS, RpcClient
from libs.common.lifecycle import TaskOwner
from tests.benchmarks.figures import percentile
from tests.support.fleet import AUTH_SECRET, SERVICE_SECRET

CLOCK = SystemClock()
CALL_SECONDS = 30.0


def wall_seconds() -> float:
    """Comparable with PostgreSQL's clock, which is the same machine's."""
    return CLOCK.now().timestamp()


@dataclass(slots=True)
class Tools:
    """What lives as long as the process.

    Attributes:
        tasks: what goes on between two scenarios.
        kept: what one scenario leaves for the next.
    """

    tasks: TaskOwner = field(default_factory=TaskOwner)
    kept: dict[str, Any] = field(default_factory=dict)
    _channels: dict[tuple[str, int], grpc.aio.Channel] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)

    def channel(self, target: str, number: int = 0) -> grpc.aio.Channel:
        """A connection that is kept; another number is another one."""
        key = (target, number)
        if key not in self._channels:
            # Channels to one target share a connection unless told not to, and that takes
            # 1,000 streams.
            own = ("grpc.use_local_subchannel_pool", 1)
            self._channels[key] = grpc.aio.insecure_channel(target, options=(*CHANNEL_OPTIONS, own))
        return self._channels[key]

    def team(self, target: str, team: str, number: int = 0) -> RpcClient:
        """A team's client."""
        if team not in self._tokens:
            self._tokens[team] = mint_user_token(
                secret=AUTH_SECRET, issuer="contentshop", team=team, scopes=["team"], clock=CLOCK
            )
        token = self._tokens[team]
        return RpcClient(self.channel(target, number), lambda: token)

    def service(self, target: str, service: str, scope: str) -> RpcClient:
        """A service's client."""
        tokens = service_tokens(
            secret=SERVICE_SECRET, subject="bench", target=service, scope=scope, clock=CLOCK
        )
        return RpcClient(self.channel(target), tokens)

    async def close(self) -> None:
        """Ends tasks and connections."""
        await self.tasks.close()
        for channel in self._channels.values():
            await channel.close()


def spread(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds, and how many there were."""
    return {
        "n": len(seconds),
        "p50_ms": percentile(seconds, 0.5) * 1000,
        "p99_ms": percentile(seconds, 0.99) * 1000,
    }


async def closed_loop(
    call: Callable[[int], Awaitable[object]], callers: int, seconds: float
) -> dict[str, float]:
    """`callers` callers that each call again as soon as they are answered."""
    took: list[float] = []

    async def caller(number: int) -> None:
        while (begun := time.perf_counter()) < end:
            await call(number)
            took.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as group:  # connections and caches get warm
        for number in range(callers):
            group.create_task(_ignoring(call(number)))
    begun = time.perf_counter()
    end = begun + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(number))
    wall = time.perf_counter() - begun
    return {"rate": len(took) / wall, **spread(took)}


async def _ignoring(call: Awaitable[object]) -> None:
    await call
