"""A zip that was deleted stays deleted, also while its blob and its row are being removed."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.common.blobs import BlobStat
from libs.common.blobs_file import FileBlobStore
from libs.common.clock import SystemClock
from libs.common.crash import CrashPoints
from libs.common.db import Database
from libs.common.errors import NotFoundError
from libs.common.ids import SystemIds
from libs.common.lifecycle import TaskOwner
from services.assets.domain import Content, FileKind, NewFile, Slot, blob_key
from services.assets.gateways import ImageInspector
from services.assets.relay import remove_blobs
from services.assets.usecases.archiving import store_archive
from services.assets.usecases.deleting import delete_file
from services.assets.usecases.deps import Deps, Figures
from tests.support.assets_house import DATABASES, database, sha256

ZIP = b"a zip"


class RemovedMeanwhile(FileBlobStore):
    """Between the look at a blob and what follows, the removal of deleted blobs comes by."""

    deps: Deps

    async def stat(self, key: str) -> BlobStat | None:
        found = await super().stat(key)
        while await remove_blobs(self.deps):
            pass
        return found


@pytest.fixture(params=DATABASES)
async def deps(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deps]:
    """The means of assets, with a clean-up that comes at the worst moment."""
    urls = database(request.param, request, tmp_path)
    clock, ids, tasks = SystemClock(), SystemIds(), TaskOwner()
    db = Database(urls.app, duty_url=urls.duty, clock=clock)
    blobs = RemovedMeanwhile(tmp_path / "blobs", ids)
    await blobs.start()
    blobs.deps = Deps(
        db=db,
        blobs=blobs,
        inspector=ImageInspector(1),  # starts a thread with its first image only
        clock=clock,
        ids=ids,
        crash=CrashPoints(""),
        figures=Figures(removal_seconds=0.0),
        wake_removals=lambda: None,
        tasks=tasks,
    )
    yield blobs.deps
    await tasks.close()
    await blobs.close()
    await db.stop()


async def test_a_deleted_zip_is_not_stored_again_while_it_is_removed(deps: Deps) -> None:
    key = blob_key("red", FileKind.ARCHIVE, deps.ids.token())
    await deps.blobs.put(key, [ZIP], "application/zip")
    content = Content("application/zip", len(ZIP), 0, 0, sha256(ZIP), zlib.crc32(ZIP))
    new = NewFile("red", FileKind.ARCHIVE, "a.zip", key, content, Slot(job_id=5))
    stored = await store_archive(deps, new)
    await delete_file(deps, "red", stored.id)
    with pytest.raises(NotFoundError):
        await store_archive(deps, new)
