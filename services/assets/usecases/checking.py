"""Files beside their blobs: what a restore of the one and not of the other has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from libs.common.blobs import BlobStore
from libs.common.db import Database
from services.assets.store import files
from services.assets.store.files import StoredBlob

PAGE = 500
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class MissingBlob:
    """A file that cannot be read, and what is wrong."""

    file_id: int
    team: str
    what: str


@dataclass(frozen=True, slots=True)
class Page:
    """How many files were looked at, and those without their bytes."""

    looked_at: int
    missing: list[MissingBlob]


async def files_without_blob(db: Database, blobs: BlobStore) -> AsyncIterator[Page]:
    """All files that are not deleted, of all teams, a page at a time."""
    after_id = 0
    while True:
        async with db.read_all() as tx:
            page = await files.page_of_blobs(tx, after_id, PAGE)
        if not page:
            return
        after_id = page[-1].file_id
        turns = asyncio.Semaphore(AT_ONCE)

        async def look(file: StoredBlob, turns: asyncio.Semaphore = turns) -> MissingBlob | None:
            async with turns:
                stat = await blobs.stat(file.blob_key)
            if stat is None:
                return MissingBlob(file.file_id, file.team, "it has no blob")
            if stat.size != file.size_bytes:
                return MissingBlob(
                    file.file_id, file.team, f"{stat.size} of {file.size_bytes} bytes are there"
                )
            return None

        found = await asyncio.gather(*(look(file) for file in page))
        yield Page(len(page), [one for one in found if one is not None])
