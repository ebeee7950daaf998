"""Building one archive: from the ids of its images to a zip that assets knows as a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from libs.common.clock import Clock
from libs.common.db import Tx
from libs.common.errors import (
    AbortedError,
    ContentshopError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    LeaseLostError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from services.packager.domain import (
    Archive,
    Attempt,
    Reason,
    SourceImage,
    WritePlace,
    WrittenZip,
    fault_of,
    gives_up,
)
from services.packager.store import builds
from services.packager.usecases.deps import Deps
from services.packager.zipwork import ZipWork, plan_zip

log = structlog.get_logger()

_REASONS: tuple[tuple[type[ContentshopError], Reason], ...] = (
    (NotFoundError, Reason.INPUT_MISSING),
    (DataLossError, Reason.DATA_LOSS),
    (UnavailableError, Reason.STORAGE_UNAVAILABLE),
    (ResourceExhaustedError, Reason.STORAGE_UNAVAILABLE),
    (DeadlineExceededError, Reason.STORAGE_UNAVAILABLE),
    (AbortedError, Reason.STORAGE_UNAVAILABLE),
)

URL_SECONDS = 300.0  # a third of what a presigned URL lives
URL_WINDOW = 200  # images whose URLs are asked for anew together


class ArchiveStore(Protocol):
    """assets, as far as building needs it."""

    async def resolve(self, team: str, file_ids: Sequence[int]) -> list[SourceImage]:
        """The images in the order asked; NotFoundError when one is not there."""
        ...

    async def begin(self, team: str, size_bytes: int) -> WritePlace:
        """Where a zip of exactly this size may be written."""
        ...

    async def store(self, archive: Archive, written: WrittenZip) -> int:
        """Makes a written zip a file; its id. Idempotent on the blob key.

        Raises:
            FailedPreconditionError: BLOB_INCOMPLETE, it is not there.
        """
        ...


class ZipSink(Protocol):
    """The blob store, as far as building needs it."""

    async def write(
        self,
        write_url: str,
        work: ZipWork,
        *,
        fresh_url: Callable[[int], Awaitable[str]],
        on_entry: Callable[[int], None],
    ) -> tuple[str, int]:
        """Writes the zip whole or not at all, in constant memory; its SHA-256 and CRC-32.

        Args:
            write_url: where to.
            work: what.
            fresh_url: the blob_url of entry n when its turn comes.
            on_entry: told, in a thread, when entry n begins.

        Raises:
            DataLossError: an image's bytes have not the size and CRC-32 they must have.
            NotFoundError: an image's blob is not there.
            UnavailableError, ResourceExhaustedError: the store is away or full.
        """
        ...


@dataclass(slots=True)
class Progress:
    """How many images an attempt has written; set by the zip's thread, read by the loop."""

    images_written: int = 0

    def entry_begun(self, position: int) -> None:
        """Entry n from 0 begins: so many images stand before it."""
        self.images_written = position


class FreshUrls:
    """The blob_urls of an attempt's images, none older than URL_SECONDS when it is given out.

    Those the plan was made with serve while they are young, so that an ordinary archive asks
    assets once; a long one asks again for a window of the images to come.
    """

    def __init__(
        self,
        resolve: Callable[[Sequence[int]], Awaitable[Sequence[SourceImage]]],
        images: Sequence[SourceImage],
        clock: Clock,
    ) -> None:
        self._resolve = resolve
        self._file_ids = [image.file_id for image in images]
        self._clock = clock
        self._keep(0, images)

    async def __call__(self, position: int) -> str:
        """The URL of the image at the position from 0; NotFoundError when it is gone by now."""
        held = 0 <= position - self._first < len(self._urls)
        if not held or self._clock.monotonic() - self._resolved_at > URL_SECONDS:
            window = self._file_ids[position : position + URL_WINDOW]
            self._keep(position, await self._resolve(window))
        return self._urls[position - self._first]

    def _keep(self, first: int, images: Sequence[SourceImage]) -> None:
        self._first = first
        self._urls = [image.blob_url for image in images]
        self._resolved_at = self._clock.monotonic()


class BuildArchive:
    """One attempt at one archive, as taken with a lease; every outcome ends as a row."""

    def __init__(self, deps: Deps, store: ArchiveStore, zips: ZipSink) -> None:
        self._deps = deps
        self._store = store
        self._zips = zips

    async def __call__(self, attempt: Attempt, progress: Progress) -> None:
        """Makes the archive READY, or plans its next attempt, or gives it up as FAILED.

        Raises:
            LeaseLostError: the attempt is another's by now.
            UnavailableError, AbortedError: nothing could be recorded; the lease runs out.
        """
        archive = attempt.archive
        source = archive.source
        log.debug("build.begun", archive_id=archive.id, of=source.kind.value, source_id=source.id)
        if archive.attempts > self._deps.limits.attempts:
            # The last attempts ended with their packagers; this zip may be what killed them.
            await self._failed(archive, Reason.INTERNAL, "PACKAGER_LOST")
            return
        try:
            written = archive.written or await self._write(attempt, progress)
            file_id = await self._make_file(archive, written)
        except LeaseLostError:
            raise
        except ContentshopError as error:
            await self._failed(archive, _reason_of(error), error.reason)
            return
        except Exception as error:
            # A fault of ours: it must not be tried for ever, and it must be seen.
            log.exception("build.fault", archive_id=archive.id)
            await self._failed(archive, Reason.INTERNAL, type(error).__name__)
            return
        async with self._deps.db.duty() as tx:
            _check_mine(await builds.ready(tx, archive, file_id, written.size_bytes))
            self._ended(tx)
        log.info("build.ready", archive_id=archive.id, size_bytes=written.size_bytes)

    async def _write(self, attempt: Attempt, progress: Progress) -> WrittenZip:
        archive = attempt.archive
        resolve = partial(self._store.resolve, archive.team)
        images = await resolve([image.file_id for image in attempt.contents.images])
        fresh_url = FreshUrls(resolve, images, self._deps.clock)
        work = plan_zip(attempt, images)
        place = await self._store.begin(archive.team, work.plan.size)
        sha256, crc32 = await self._zips.write(
            place.write_url, work, fresh_url=fresh_url, on_entry=progress.entry_begun
        )
        self._deps.crash.here("P3")
        written = WrittenZip(place.blob_key, work.plan.size, sha256, crc32)
        # Should we die now, or the next answer get lost, this zip is stored and no second one.
        async with self._deps.db.duty() as tx:
            _check_mine(await builds.note_written(tx, archive, written))
        return written

    async def _make_file(self, archive: Archive, written: WrittenZip) -> int:
        try:
            file_id = await self._store.store(archive, written)
        except FailedPreconditionError as error:
            async with self._deps.db.duty() as tx:
                _check_mine(await builds.note_written(tx, archive, None))
            raise UnavailableError("the zip is gone", reason=error.reason) from None
        self._deps.crash.here("P3")
        return file_id

    async def _failed(self, archive: Archive, reason: Reason, cause: str) -> None:
        limits = self._deps.limits
        final = gives_up(reason, archive.attempts, limits.attempts)
        log.warning(
            "build.failed",
            archive_id=archive.id,
            attempt=archive.attempts,
            reason=reason.value,
            cause=cause,
            final=final,
        )
        async with self._deps.db.duty() as tx:
            if final:
                _check_mine(await builds.failed(tx, archive, fault_of(reason)))
                self._ended(tx)
            else:
                wait = limits.retry.wait(archive.attempts, self._deps.ids)
                _check_mine(await builds.later(tx, archive, wait))

    def _ended(self, tx: Tx) -> None:
        tx.on_commit(self._deps.wake_reporter)
        tx.on_commit(self._deps.wake_watchers)


def _check_mine(mine: bool) -> None:  # noqa: FBT001 - reads as a sentence
    if not mine:
        raise LeaseLostError("the attempt is stale")


def _reason_of(error: ContentshopError) -> Reason:
    if error.reason == Reason.TOO_LARGE:
        return Reason.TOO_LARGE
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.INTERNAL)
