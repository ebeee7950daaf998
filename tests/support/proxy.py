"""A TCP proxy that breaks connections on purpose."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self

from libs.common.lifecycle import TaskOwner
from tests.support.ports import free_port

Direction = Literal["c2s", "s2c"]
_CHUNK_BYTES = 65_536


@dataclass(eq=False)
class _Pair:
    """One client's connection and its twin to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    torn: bool = field(default=False)  # bytes were dropped: it can never be right again
    marked: bool = field(default=False)  # `after` of a Cut was seen
    cut: bool = field(default=False)  # at the server's next answer

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass(frozen=True)
class Cut:
    """Where a connection is reset: at the first `marker` a client sends behind `after`."""

    marker: bytes
    after: bytes
    delivered: bool


class TcpProxy:
    """Sits between client and server. Faults hold for open and new connections until `heal`.

    A connection that lost bytes is reset by `heal`, since its streams no longer fit together.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._owner = TaskOwner()
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._dropped: set[Direction] = set()
        self._delay_seconds = 0.0
        self._cut_after: dict[Direction, int] = {}
        self._cut: Cut | None = None
        self.host = "127.0.0.1"
        self.port = free_port()  # nobody takes it while we refuse
        self.bytes_seen: dict[Direction, int] = {"c2s": 0, "s2c": 0}

    @property
    def connections(self) -> int:
        """How many are open through it."""
        return len(self._pairs)

    async def start(self) -> None:
        """Listens on `port`, the same one after `refuse`."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self.host, self.port)

    async def close(self) -> None:
        """Stops listening and resets what is open."""
        await self.refuse()
        await self._owner.close()

    def drop_c2s(self) -> None:
        """Loses what clients send; they still hear the server."""
        self._dropped = {"c2s"}

    def drop_s2c(self) -> None:
        """Loses what the server sends; it still hears clients."""
        self._dropped = {"s2c"}

    def blackhole(self) -> None:
        """Loses everything, and new connections open onto nothing."""
        self._dropped = {"c2s", "s2c"}

    def delay(self, milliseconds: float) -> None:
        """Holds each chunk, either way, this long."""
        self._delay_seconds = milliseconds / 1000

    def cut_after(self, count: int, direction: Direction = "c2s") -> None:
        """Lets this many more bytes through in a direction, then resets the connection."""
        self._cut_after[direction] = count

    def cut_at(self, marker: bytes, *, after: bytes, delivered: bool) -> None:
        """Resets the connection that sends `after` and then `marker`, once.

        Delivered: the server has done what the marker asked for, and its answer is lost. Else the
        marker is lost. Each must lie within one write of the client.
        """
        self._cut = Cut(marker, after, delivered)

    @property
    def cut_is_due(self) -> bool:
        """Whether nobody came by what `cut_at` waits for."""
        return self._cut is not None

    def reset(self) -> None:
        """Resets all open connections; new ones pass."""
        for pair in list(self._pairs):
            pair.abort()

    async def refuse(self) -> None:
        """Resets all and refuses new ones until `heal`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    async def heal(self) -> None:
        """Everything passes again; torn connections are reset."""
        self._dropped = set()
        self._delay_seconds = 0.0
        self._cut_after.clear()
        for pair in list(self._pairs):
            if pair.torn:
                pair.abort()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._owner.spawn(self._serve(reader, writer), name="proxy.connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):  # nobody is there
                await self._join(reader, writer)
        finally:
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        pair = _Pair(writer, server_writer)
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(pair, "c2s", reader, server_writer))
                group.create_task(self._pump(pair, "s2c", server_reader, writer))
        finally:
            self._pairs.discard(pair)
            pair.abort()

    def _cut_now(self, pair: _Pair, data: bytes) -> bool:
        """Whether the connection ends before this chunk; or `cut` is set for the answer to it."""
        cut = self._cut
        if cut is None:
            return False
        pair.marked = pair.marked or cut.after in data
        if not (pair.marked and cut.marker in data):
            return False
        self._cut = None
        pair.cut = cut.delivered
        return not cut.delivered

    async def _pump(
        self,
        pair: _Pair,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                if pair.cut or (direction == "c2s" and self._cut_now(pair, data)):
                    pair.abort()
                    return
                if direction in self._dropped:
                    pair.torn = True
                    continue
                allowed = self._cut_after.get(direction)
                if allowed is not None:
                    data = data[:allowed]  # noqa: PLW2901 - the rest is what the cut is about
                    self._cut_after[direction] = allowed - len(data)
                self.bytes_seen[direction] += len(data)
                writer.write(data)
                await writer.drain()
                if allowed is not None and self._cut_after.get(direction) == 0:
                    writer.write_eof()
                    return
            if direction not in self._dropped and writer.can_write_eof():
                writer.write_eof()
        except OSError:
            pair.abort()
