"""A local HTTP server that speaks the wire format of Gemini's generateContent.

Inside a test: ``async with GeminiStub() as stub: ... stub.base_url``.
As a process: ``python -m tests.fakes.gemini_stub --port 0 --delay-ms 50 [--behaviours FILE]``;
its first line is ``{"address": "http://127.0.0.1:PORT", "port": PORT}``.

Control, for other processes:
    GET  /__calls    {"count": n, "waiting": n, "calls": [...]}, the newest 1,000
    POST /__control  any of {"reset": true, "behaviours": [...], "delay_ms": n, "release": true};
                     `behaviours` replaces the script: the first entry that matches a prompt and
                     has `times` left answers; without one the answer is an image, and a
                     text model's is words.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tests.fakes.gemini_behaviours import Behaviour, answer_body, error_body, usual
from tests.fakes.gemini_requests import TEXT_MODELS, Call, WireError, read_call

_MAX_BODY_BYTES = 100 * 1024 * 1024
_KEPT_CALLS = 1000
_PATH = re.compile(r"/v1beta/models/([A-Za-z0-9._-]+):generateContent")


class GeminiStub:
    """The server. Listens on loopback while entered; every task ends with it.

    Args:
        port: 0 for a free one.
        api_key: the only key that is taken; empty for any.
        delay_ms: before every answer of a behaviour without its own delay.
        side_pixels: the longer side of the images it makes.
    """

    def __init__(
        self, *, port: int = 0, api_key: str = "", delay_ms: int = 0, side_pixels: int = 64
    ) -> None:
        self._wanted_port = port
        self._api_key = api_key
        self.delay_ms = delay_ms
        self._side_pixels = side_pixels
        self._script: list[Behaviour] = []
        self._release = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.connections = 0
        self.count = 0
        self.calls: deque[Call] = deque(maxlen=_KEPT_CALLS)
        self.answers: Counter[str] = Counter()  # by kind, those that were sent

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    def script(self, *behaviours: Behaviour) -> None:
        """Replace the script; see the module's docstring."""
        self._script = list(behaviours)

    def release(self) -> None:
        """Let every call go that is held now."""
        self._release.set()
        self._release = asyncio.Event()

    def reset(self) -> None:
        """Forget the script and the calls; what is held goes on."""
        self._script = []
        self.calls.clear()
        self.answers.clear()
        self.count = 0
        self.release()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._wanted_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        async with asyncio.timeout(30):
            await self._idle.wait()  # each handler sees its end of file and leaves
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        self._writers.add(writer)
        self._idle.clear()
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer, connection):
                    pass
        finally:
            self._writers.discard(writer)
            if not self._writers:
                self._idle.set()
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> bool:
        """One request and its answer; whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.split("\r\n")
        method, path, _ = request_line.split(" ", 2)
        pairs = (line.split(":", 1) for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        length = int(headers.get("content-length", "0"))
        if length > _MAX_BODY_BYTES:
            body = error_body(413, message="Request payload size exceeds the limit")
            await _send(writer, 413, _json(body))
            return False
        body_bytes = await reader.readexactly(length)
        if path.startswith("/__"):
            await self._control(writer, method, path, body_bytes)
            return True
        match = _PATH.fullmatch(path)
        if method != "POST" or match is None:
            await _send(writer, 404, b"<html>Not Found</html>", content_type="text/html")
            return True
        self.count += 1
        call = Call(number=self.count, connection=connection, model=match[1], headers=headers)
        self.calls.append(call)
        return await self._answer(reader, writer, call, body_bytes)

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        call: Call,
        body: bytes,
    ) -> bool:
        try:
            read_call(call, body, self._api_key)
        except WireError as error:
            call.state = "refused"
            await _send(writer, error.status, _json(error.body))
            return True
        asks_words = call.model in TEXT_MODELS
        script = (item for item in self._script if item.take(call.prompt, text_model=asks_words))
        behaviour = next(script, usual(text_model=asks_words))
        if await self._client_left(reader, behaviour):
            call.state = "gone"
            return False
        call.state = "answered"
        return await self._write(writer, call, behaviour)

    async def _client_left(self, reader: asyncio.StreamReader, behaviour: Behaviour) -> bool:
        """Wait as the behaviour says; true as soon as the client closes its connection."""
        if behaviour.kind == "hang":
            return await _closes(reader, None)
        release = self._release
        while behaviour.held and not release.is_set():
            if await _closes(reader, 0.005):
                return True
        delay_ms = behaviour.delay_ms or self.delay_ms
        return delay_ms > 0 and await _closes(reader, delay_ms / 1000)

    async def _write(self, writer: asyncio.StreamWriter, call: Call, behaviour: Behaviour) -> bool:
        kind = behaviour.kind
        self.answers[kind] += 1
        if kind == "disconnect":
            writer.transport.abort()
            return False
        extra = {"retry-after": behaviour.retry_after} if behaviour.retry_after else {}
        if kind == "raw":
            data = behaviour.text.encode("latin-1")
            await _send(writer, behaviour.status, data, extra=extra, content_type="text/html")
            return True
        if kind == "error":
            body = error_body(
                behaviour.status,
                message=behaviour.message,
                status_name=behaviour.status_name,
                reason=behaviour.reason,
                retry_delay=behaviour.retry_delay,
            )
            await _send(writer, behaviour.status, _json(body), extra=extra)
            return True
        if kind == "garbage":
            await _send(writer, 200, b'{"candidates": [{"content": ')
            return True
        seed = f"{call.prompt} {call.number}"
        body = answer_body(behaviour, seed, call.model, call.aspect_ratio, self._side_pixels)
        data = _json(body)
        if kind == "cut":
            await _send(writer, 200, data, cut_at=len(data) // 2)
            return False
        await _send(writer, 200, data)
        return True

    async def _control(
        self, writer: asyncio.StreamWriter, method: str, path: str, body: bytes
    ) -> None:
        if (method, path) == ("GET", "/__calls"):
            waiting = sum(call.state == "waiting" for call in self.calls)
            calls = [_shown(call) for call in self.calls]
            seen = {"count": self.count, "waiting": waiting, "calls": calls}
            await _send(writer, 200, _json(seen))
        elif (method, path) == ("POST", "/__control"):
            try:
                self._apply(json.loads(body))
            except (ValueError, TypeError, KeyError) as error:
                await _send(writer, 400, _json({"error": str(error)}))
            else:
                await _send(writer, 200, b"{}")
        else:
            await _send(writer, 404, b"{}")

    def _apply(self, order: dict[str, Any]) -> None:
        unknown = set(order) - {"reset", "behaviours", "delay_ms", "release"}
        if unknown:
            raise ValueError(f"unknown orders {sorted(unknown)}")
        script = [Behaviour.from_json(item) for item in order.get("behaviours", [])]
        if order.get("reset"):
            self.reset()
        if "behaviours" in order:
            self.script(*script)
        self.delay_ms = int(order.get("delay_ms", self.delay_ms))
        if order.get("release"):
            self.release()


async def _closes(reader: asyncio.StreamReader, seconds: float | None) -> bool:
    """Whether the client closes its end within the time; None waits for it."""
    try:
        async with asyncio.timeout(seconds):
            await reader.read(1)
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True  # end of file; a second request before the answer is as good as a break


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    data: bytes,
    *,
    extra: dict[str, str] | None = None,
    content_type: str = "application/json; charset=UTF-8",
    cut_at: int | None = None,
) -> None:
    headers = {"content-type": content_type, "content-length": str(len(data)), **(extra or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} Stub\r\n{lines}\r\n".encode("latin-1")
    writer.write(head + data[:cut_at])
    await writer.drain()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _shown(call: Call) -> dict[str, Any]:
    """A call as others may read it: never the key."""
    shown = asdict(call)
    shown["headers"] = {k: v for k, v in call.headers.items() if k != "x-goog-api-key"}
    return shown


def _read_script(path: Path | None) -> Iterable[Behaviour]:
    items = json.loads(path.read_text()) if path else []
    return [Behaviour.from_json(item) for item in items]


async def _main(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    script = await asyncio.to_thread(_read_script, arguments.behaviours)
    stub = GeminiStub(
        port=arguments.port,
        api_key=arguments.api_key,
        delay_ms=arguments.delay_ms,
        side_pixels=arguments.side,
    )
    stub.script(*script)
    async with stub:
        sys.stdout.write(json.dumps({"address": stub.base_url, "port": stub.port}) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a local stand-in for the Gemini API")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=int, default=0)
    parser.add_argument("--side", type=int, default=64, help="longer side of images, in pixels")
    parser.add_argument("--api-key", default="", help="the only key taken; any where empty")
    parser.add_argument("--behaviours", type=Path, help="JSON file with a list of behaviours")
    asyncio.run(_main(parser.parse_args()))
