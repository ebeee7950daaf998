"""What the use cases share: their means, their limits, and how a blob becomes a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from libs.common.blobs import BlobStore
from libs.common.clock import Clock
from libs.common.crash import CrashPoints
from libs.common.db import Database, Tx
from libs.common.errors import ContentshopError, UnavailableError
from libs.common.ids import Ids
from libs.common.lifecycle import TaskOwner
from services.assets.domain import Content, FileKind, blob_key
from services.assets.imaging import GENERATED_LIMITS, UPLOAD_LIMITS, Inspected, Limits

log = structlog.get_logger()

T = TypeVar("T")

MIB = 1024 * 1024


class Inspector(Protocol):
    """Says what of an image may be stored."""

    async def inspect(
        self,
        data: memoryview,
        *,
        sha256: str,
        declared_type: str,
        limits: Limits,
        xmp: bytes | None = None,
    ) -> Inspected:
        """What may be stored; InvalidArgumentError with the reason why not."""
        ...


@dataclass(frozen=True, slots=True)
class Figures:
    """Limits and times, in bytes, rows and seconds; from settings."""

    upload: Limits = UPLOAD_LIMITS
    generated: Limits = GENERATED_LIMITS
    spool_bytes: int = 16 * MIB
    spool_folder: str = ""
    pin_seconds: float = 600.0
    removal_seconds: float = 900.0
    orphan_seconds: float = 3600.0
    folders_per_team: int = 1_000
    moodboards_per_team: int = 500
    variants_per_team: int = 100_000
    upload_seconds: float = 300.0
    reservation_seconds: float = 600.0
    max_stored_bytes: int = 0
    review_required: bool = False


@dataclass(frozen=True, slots=True)
class Deps:
    """What every use case is given."""

    db: Database
    blobs: BlobStore
    inspector: Inspector
    clock: Clock
    ids: Ids
    crash: CrashPoints
    figures: Figures
    wake_removals: Callable[[], None]
    tasks: TaskOwner


def content_of(inspected: Inspected) -> Content:
    """What is stored of an image."""
    return Content(
        content_type=inspected.content_type,
        size_bytes=inspected.size,
        width=inspected.width,
        height=inspected.height,
        sha256=inspected.sha256,
        crc32=inspected.crc32,
    )


async def store(
    deps: Deps,
    team: str,
    kind: FileKind,
    inspected: Inspected,
    write: Callable[[Tx, str], Awaitable[T]],
) -> T:
    """Stores the blob, then what `write` writes, in one transaction; the result of write.

    A process that dies in between leaves a blob without a file, which the orphan sweep removes
    after its grace. What write raises rolls back, and the blob goes at once.

    Args:
        deps: shared means.
        team: whose.
        kind: of the file.
        inspected: the bytes.
        write: given the transaction and the blob's key.
    """
    key = blob_key(team, kind, deps.ids.token())
    deps.crash.here("A1")
    await deps.blobs.put(key, inspected.parts, inspected.content_type)
    deps.crash.here("A3")
    try:
        async with deps.db.transaction(team) as tx:
            result = await write(tx, key)
    except Exception as error:
        if _surely_rolled_back(error):
            await drop_blob(deps, key)
        raise
    deps.crash.here("A4")
    return result


async def drop_blob(deps: Deps, key: str) -> None:
    """Removes a blob that is no file's; where the store is away the orphan sweep does it later."""
    try:
        await deps.blobs.delete([key])
    except ContentshopError as error:
        log.info("blob.left_to_the_sweep", key=key, reason=error.reason)


def _surely_rolled_back(error: Exception) -> bool:
    """Whether no row can have been committed: a COMMIT whose answer was lost may have worked."""
    return not isinstance(error, UnavailableError) or error.reason == "DATABASE_BUSY"
