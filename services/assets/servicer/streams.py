"""Client streams: a header exactly once and first, then chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic, Protocol, TypeVar

from libs.common.blobs import CHUNK_BYTES
from libs.common.checks import checking
from libs.common.errors import InvalidArgumentError
from services.assets.receiving import Pace, PacedStream

HEADER_MISPLACED = "HEADER_MISPLACED"

HeaderT = TypeVar("HeaderT")


class Part(Protocol):
    """A message of a client stream: a header or a chunk."""

    chunk: bytes

    def WhichOneof(self, oneof_group: Any, /) -> str | None:
        """Which of the two it is."""
        ...


class PartStream(Generic[HeaderT]):
    """A stream of parts: the header, then the bytes, each in its time."""

    def __init__(self, messages: AsyncIterator[Any], pace: Pace) -> None:
        self._stream: PacedStream[Any] = PacedStream(messages, pace)

    async def header(self) -> HeaderT:
        """The header; InvalidArgumentError when the first message is none."""
        message = await self._stream.next()
        if message is None or message.WhichOneof("part") != "header":
            raise InvalidArgumentError(
                "the first message must be the header", reason=HEADER_MISPLACED
            )
        header: HeaderT = message.header
        return header

    async def next(self) -> bytes | None:
        """The next bytes, perhaps none; None at the end.

        Raises:
            InvalidArgumentError: a second header, neither header nor chunk, or too long a chunk.
            DeadlineExceededError: UPLOAD_STALLED.
        """
        message: Part | None = await self._stream.next()
        if message is None:
            return None
        if message.WhichOneof("part") != "chunk":
            raise InvalidArgumentError(
                "every message after the first must be a chunk", reason=HEADER_MISPLACED
            )
        chunk = message.chunk
        with checking() as check:
            check.check(len(chunk) <= CHUNK_BYTES, "chunk", f"must be at most {CHUNK_BYTES} bytes")
        return chunk

    def progressed(self) -> None:
        """The client has the full time for its next bytes again."""
        self._stream.progressed()
