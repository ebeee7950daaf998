"""Taking bytes in: each message within its time, counted before it is copied, memory bounded."""

from __future__ import annotations

import asyncio
import mmap
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Generic, Protocol, Self, TypeVar

from libs.common.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
)
from services.assets.imaging import refusals

T_co = TypeVar("T_co", covariant=True)

WAITING_PER_PLACE = 8


class Chunks(Protocol):
    """The bytes of one client stream, as they come."""

    async def next(self) -> bytes | None:
        """The next bytes, perhaps none; None at the end. DeadlineExceededError UPLOAD_STALLED."""
        ...

    def progressed(self) -> None:
        """The client has the full time for its next bytes again."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a client may take: for the next bytes, and for the whole stream, in seconds."""

    chunk_seconds: float
    total_seconds: float


class PacedStream(Generic[T_co]):
    """The messages of a client stream, each within its time.

    A message without bytes is no progress: only `progressed` gives the client more time.
    """

    def __init__(self, messages: AsyncIterator[T_co], pace: Pace) -> None:
        self._messages = messages
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + pace.total_seconds
        self._next_by = 0.0
        self.progressed()

    def progressed(self) -> None:
        """The client has the full time for its next bytes again."""
        self._next_by = self._loop.time() + self._pace.chunk_seconds

    async def next(self) -> T_co | None:
        """The next message, None at the end; DeadlineExceededError UPLOAD_STALLED."""
        try:
            async with asyncio.timeout_at(min(self._next_by, self._ends_at)):
                return await anext(self._messages, None)
        except TimeoutError:
            raise DeadlineExceededError(
                "the upload took too long", reason="UPLOAD_STALLED"
            ) from None


class Received:
    """The announced number of bytes, in memory or, where they are many, in a temporary file.

    Use it as a context manager; `data` is valid inside.

    Args:
        size: bytes to come, exactly.
        memory_bytes: above this they go to the file.
        folder: of the file, which has no name there; empty: the system's.
    """

    def __init__(self, size: int, *, memory_bytes: int, folder: str = "") -> None:
        self.size = size
        self._folder = folder or None
        self._buffer = bytearray(size) if size <= memory_bytes else None
        self._file: IO[bytes] | None = None
        self._map: mmap.mmap | None = None

    async def take(self, chunks: Chunks) -> None:
        """Takes the stream to its end.

        Raises:
            InvalidArgumentError: FILE_TOO_LARGE, as soon as there is a byte too many; EMPTY_FILE
                and SIZE_MISMATCH at the end.
            ResourceExhaustedError: STORAGE_FULL, the temporary file cannot grow.
        """
        taken = 0
        while (chunk := await chunks.next()) is not None:
            if taken + len(chunk) > self.size:
                raise refusals.file_too_large(self.size)
            if chunk:
                await self._put(taken, chunk)
                taken += len(chunk)
                chunks.progressed()
        if taken == 0:
            raise refusals.empty()
        if taken != self.size:
            raise InvalidArgumentError(
                "fewer bytes came than the header announced", reason="SIZE_MISMATCH"
            )
        if self._buffer is None:
            await asyncio.to_thread(self._open_map)

    @property
    def data(self) -> memoryview:
        """All the bytes."""
        if self._buffer is not None:
            return memoryview(self._buffer)
        assert self._map is not None  # taken to its end
        return memoryview(self._map)

    async def _put(self, at: int, chunk: bytes) -> None:
        if self._buffer is not None:
            self._buffer[at : at + len(chunk)] = chunk
        else:
            await asyncio.to_thread(self._write, chunk)

    def _write(self, chunk: bytes) -> None:
        with _room_needed():
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115 - closed in __exit__
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]

    def _open_map(self) -> None:
        assert self._file is not None  # there were bytes
        with _room_needed():
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A slice that is still held somewhere (by a thread whose caller has gone, or an error's
        # traceback) keeps the map open until it is dropped; the file has no name to leave behind.
        if self._map is not None:
            with suppress(BufferError):
                self._map.close()
        if self._file is not None:
            self._file.close()


@contextmanager
def _room_needed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceExhaustedError(
            "the server has no room for the upload",
            reason="STORAGE_FULL",
            retry_after_seconds=10.0,
            quota_subject="storage",
        ) from error


class Places:
    """So many uploads at once, of them so many of one team; the next wait their turn.

    Args:
        total: places.
        per_holder: of them, for one holder.
        wait_seconds: for a place.
    """

    def __init__(self, total: int, *, per_holder: int, wait_seconds: float) -> None:
        self._total = total
        self._per_holder = per_holder
        self._wait_seconds = wait_seconds
        self._held: dict[str, int] = {}
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def place(self, holder: str) -> AsyncIterator[None]:
        """Holds a place; ResourceExhaustedError SERVER_BUSY when none comes free in time."""
        if self._has_room(holder):
            self._take(holder)
        else:
            await self._wait(holder)
        try:
            yield
        finally:
            self._release(holder)

    def _has_room(self, holder: str) -> bool:
        return (
            sum(self._held.values()) < self._total and self._held.get(holder, 0) < self._per_holder
        )

    def _take(self, holder: str) -> None:
        self._held[holder] = self._held.get(holder, 0) + 1

    def _release(self, holder: str) -> None:
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]
        for waiter in self._waiting:
            if self._has_room(waiter[0]):
                self._take(waiter[0])
                self._waiting.remove(waiter)
                waiter[1].set_result(None)
                return

    async def _wait(self, holder: str) -> None:
        if len(self._waiting) >= WAITING_PER_PLACE * self._total:
            raise _busy()
        waiter = (holder, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await waiter[1]
        except BaseException as error:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:  # the place came in the moment we left
                self._release(holder)
            if isinstance(error, TimeoutError):
                raise _busy() from None
            raise


def _busy() -> ResourceExhaustedError:
    return ResourceExhaustedError(
        "the server is busy with other uploads",
        reason="SERVER_BUSY",
        retry_after_seconds=2.0,
        quota_subject="concurrent uploads",
    )
