"""Blocking blob work off the event loop: few threads, a deadline, no leftover when cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from libs.common.errors import UnavailableError

T = TypeVar("T")

SLOWEST_BYTES_PER_SECOND = 1024 * 1024  # a transfer below this rate is a fault, not patience


def allowance(base_seconds: float, size: int) -> float:
    """How long moving `size` bytes may take in all, in seconds."""
    return base_seconds + size / SLOWEST_BYTES_PER_SECOND


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Ends the body after seconds with UnavailableError `STORAGE_TIMED_OUT`."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise UnavailableError(
            "The blob store did not answer in time.", reason="STORAGE_TIMED_OUT"
        ) from error


class BlobThreads:
    """A bounded pool of threads. Who waits for a free one waits on the loop, and can be cancelled.

    A thread cannot be stopped from outside: the work itself must end soon after its caller has
    gone (socket timeouts, a stop flag).
    """

    def __init__(self, name: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)

    async def run(self, work: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """The result of work, or its error.

        Args:
            work: runs in a thread; never started when the caller is cancelled before.
            undo: gives a result back that nobody is left to take; must be quick.
        """
        future = self._submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if undo is not None and not future.cancel():
                future.add_done_callback(lambda done: _undo(done, undo))
            raise

    def later(self, work: Callable[[], None]) -> None:
        """Runs work in a thread, without waiting; here and now when the pool is closed."""
        try:
            self._pool.submit(work)
        except RuntimeError:
            work()

    async def close(self) -> None:
        """Ends the threads; waits for the work they are in."""
        await asyncio.to_thread(self._pool.shutdown, wait=True)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        try:
            return self._pool.submit(work)
        except RuntimeError as error:
            raise UnavailableError("The blob store is closed.") from error


def _undo(done: Future[T], undo: Callable[[T], None]) -> None:
    if not done.cancelled() and done.exception() is None:
        undo(done.result())


class Reader(Protocol):
    """An open blob, read in a thread."""

    def read(self) -> bytes:
        """The next chunk; empty at the end."""
        ...

    def interrupt(self) -> None:
        """Makes a read that is under way end soon; never blocks."""
        ...

    def close(self) -> None:
        """Gives the file or the connection back, after a read that is under way."""
        ...


async def chunks(
    threads: BlobThreads, open_reader: Callable[[], Awaitable[Reader]], chunk_seconds: float
) -> AsyncGenerator[bytes, None]:
    """The chunks of a blob: a thread is held per chunk, never between chunks.

    The deadline is per chunk: a slow consumer is not the store's fault.
    """
    reader = await open_reader()
    try:
        while True:
            async with deadline(chunk_seconds):
                chunk = await threads.run(reader.read)
            if not chunk:
                return
            yield chunk
    finally:  # nothing is awaited: this also runs when the consumer just goes away
        reader.interrupt()
        threads.later(reader.close)
