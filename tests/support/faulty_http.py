"""An HTTP proxy on the wire in front of a real server, with faults on demand.

A client is given the proxy's address as its server. The Host header passes unchanged, so a
signature over it is valid at the server; the proxy adds only `Connection: close`, which nobody
signs, so that an answer ends where its connection ends and needs no parsing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

BLOCK = 64 * 1024


@dataclass
class Fault:
    """What happens to the next `times` requests with this method (empty: any) and path part.

    Attributes:
        status: answer this and do not ask the server; 0 asks it.
        location: of a redirect.
        cut_answer_after: close the connection after so many bytes of the answer's body.
        flip_answer_at, flip_request_at: turn one bit of this byte of the body.
        stall_answer_after: send so many bytes of the answer's body, then nothing more.
        stall: read the request and never answer.
        drop_answer: let the server do it, and close without a word.
    """

    method: str = ""
    path: str = ""
    times: int = 1
    status: int = 0
    location: str = ""
    cut_answer_after: int | None = None
    stall_answer_after: int | None = None
    flip_answer_at: int | None = None
    flip_request_at: int | None = None
    stall: bool = False
    drop_answer: bool = False

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in {"", method} and self.path in path


@dataclass
class FaultyHttp:
    """The proxy. `requests` has every request line's method and path, in order."""

    upstream_host: str
    upstream_port: int
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _healed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, fault: Fault) -> None:
        self.faults.append(fault)

    def count(self, method: str) -> int:
        return sum(1 for seen, _ in self.requests if seen == method)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._healed.set()
            server.close()
            for writer in list(self._open):
                writer.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._one_request(reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _one_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.decode("latin-1").split(" ", 2)
        self.requests.append((method, path))
        fault = next((each for each in self.faults if each.matches(method, path)), Fault())
        fault.times -= 1
        length = int(found[1]) if (found := re.search(rb"(?i)content-length: (\d+)", head)) else 0
        if fault.status or fault.stall:
            await _skip(reader, length)
            if fault.stall:
                await self._healed.wait()
                return
            extra = f"Location: {fault.location}\r\n" if fault.location else ""
            writer.write(
                f"HTTP/1.1 {fault.status} Fault\r\n{extra}Content-Length: 0\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            await writer.drain()
            return
        up_reader, up_writer = await asyncio.open_connection(self.upstream_host, self.upstream_port)
        self._open.add(up_writer)
        try:
            up_writer.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            await _pump(reader, up_writer, length, fault.flip_request_at)
            answer = await up_reader.readuntil(b"\r\n\r\n")
            if fault.drop_answer:
                return
            writer.write(answer)
            stop_after = fault.stall_answer_after
            if stop_after is None:
                stop_after = fault.cut_answer_after
            await _pump(up_reader, writer, stop_after, fault.flip_answer_at)
            if fault.stall_answer_after is not None:
                await self._healed.wait()
        finally:
            self._open.discard(up_writer)
            up_writer.close()


async def _skip(reader: asyncio.StreamReader, length: int) -> None:
    while length > 0 and (block := await reader.read(min(BLOCK, length))):
        length -= len(block)


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    length: int | None,
    flip_at: int | None,
) -> None:
    """Copies length bytes, or all of them."""
    done = 0
    while length is None or done < length:
        block = bytearray(await reader.read(BLOCK if length is None else min(BLOCK, length - done)))
        if not block:
            break
        if flip_at is not None and done <= flip_at < done + len(block):
            block[flip_at - done] ^= 1
        done += len(block)
        writer.write(block)
        await writer.drain()
    await writer.drain()
