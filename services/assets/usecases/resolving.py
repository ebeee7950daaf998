"""ResolveImages: references to files and where to read them, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.blobs import BlobStore
from libs.common.checks import Violations
from services.assets.domain import File
from services.assets.store import files, pins
from services.assets.usecases.deps import Deps

BAD_REFERENCE = "BAD_IMAGE_REFERENCE"


@dataclass(frozen=True, slots=True)
class ReadableFile:
    """A file and the blob_url to read it by."""

    file: File
    blob_url: str


async def resolve_images(
    deps: Deps, team: str, file_ids: Sequence[int | None], pin_token: str
) -> list[ReadableFile]:
    """The images in the order asked, pinned where a pin token is given.

    Args:
        deps: shared means.
        team: whose.
        file_ids: one per reference; None where it was not of a form we take.
        pin_token: empty: no pin.

    Raises:
        InvalidArgumentError: BAD_IMAGE_REFERENCE, naming every bad reference at refs[i].
    """
    wanted = {file_id for file_id in file_ids if file_id is not None}
    if pin_token:
        async with deps.db.transaction(team) as tx:
            found = await files.find_images(tx, team, wanted, hold=True)
            _refuse_bad(file_ids, found)
            if found:
                await pins.add(tx, team, pin_token, found, deps.figures.pin_seconds)
    else:
        async with deps.db.read(team) as tx:
            found = await files.find_images(tx, team, wanted, hold=False)
        _refuse_bad(file_ids, found)
    readable = await asyncio.to_thread(_readable, deps.blobs, found)
    return [readable[file_id] for file_id in file_ids if file_id is not None]


def readable(deps: Deps, file: File) -> ReadableFile:
    """A file and where to read it."""
    return ReadableFile(file, deps.blobs.read_url(file.blob_key))


def _refuse_bad(file_ids: Sequence[int | None], found: dict[int, File]) -> None:
    violations = Violations()
    for index, file_id in enumerate(file_ids):
        if file_id is None:
            violations.add(f"refs[{index}]", "is not an upload", "IMAGE_NOT_AN_UPLOAD")
        elif file_id not in found:
            violations.add(f"refs[{index}]", "is not found", "IMAGE_NOT_FOUND")
    violations.raise_if_any(BAD_REFERENCE)


def _readable(blobs: BlobStore, found: dict[int, File]) -> dict[int, ReadableFile]:
    """Off the loop: signing 2,000 URLs takes a while."""
    return {
        file_id: ReadableFile(file, blobs.read_url(file.blob_key))
        for file_id, file in found.items()
    }
