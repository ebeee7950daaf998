"""ResolveImages: references to files and where to read them, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from libs.common.blobs import BlobStore
from libs.common.checks import Violations
from libs.common.db import Tx
from services.assets.domain import File, MoodboardContent
from services.assets.store import files, folders, moodboards, pins
from services.assets.usecases.deps import Deps
from services.assets.usecases.referencing import BAD_REFERENCE, NOT_AN_UPLOAD, NOT_FOUND


@dataclass(frozen=True, slots=True)
class ReadableFile:
    """A file and the blob_url to read it by."""

    file: File
    blob_url: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be resolved.

    Attributes:
        file_ids: one per reference; None where it was not of a form we take.
        moodboard_id: a moodboard to take a snapshot of; 0 for none.
        folder_id: a folder to check; 0 for none.
        pins: token → positions of the references that are pinned under it, with the moodboard's
            files; none: no pin.
    """

    file_ids: Sequence[int | None]
    moodboard_id: int = 0
    folder_id: int = 0
    pins: Mapping[str, Collection[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The images in the order asked, and the moodboard's snapshot where one was asked for."""

    images: list[ReadableFile]
    moodboard: MoodboardContent | None


async def resolve_images(deps: Deps, team: str, wanted: Wanted) -> Resolved:
    """The images, the moodboard's snapshot, and their files pinned where that is asked for.

    Raises:
        InvalidArgumentError: BAD_IMAGE_REFERENCE, naming every bad reference at refs[i], and at
            moodboard_id and folder_id what the team does not have.
    """
    pinning = bool(wanted.pins)
    async with deps.db.transaction(team) if pinning else deps.db.read(team) as tx:
        moodboard = await _snapshot(tx, team, wanted.moodboard_id, hold=pinning)
        asked = {file_id for file_id in wanted.file_ids if file_id is not None}
        of_moodboard = moodboard.file_ids() if moodboard else set()
        found = await files.find_images(tx, team, asked | of_moodboard, hold=pinning)
        violations = _bad_references(wanted.file_ids, found)
        if wanted.moodboard_id and moodboard is None:
            violations.add("moodboard_id", "is not found", "MOODBOARD_NOT_FOUND")
        if wanted.folder_id and not await folders.exists(tx, team, wanted.folder_id):
            violations.add("folder_id", "is not found", "FOLDER_NOT_FOUND")
        violations.raise_if_any(BAD_REFERENCE)
        pinned = {
            token: of_moodboard | {n for at in places if (n := wanted.file_ids[at]) is not None}
            for token, places in wanted.pins.items()
        }
        await pins.add(tx, team, pinned, deps.figures.pin_seconds)
    readable = await asyncio.to_thread(_readable, deps.blobs, found, asked)
    return Resolved([readable[n] for n in wanted.file_ids if n is not None], moodboard)


def readable(deps: Deps, file: File) -> ReadableFile:
    """A file and where to read it."""
    return ReadableFile(file, deps.blobs.read_url(file.blob_key))


async def _snapshot(tx: Tx, team: str, moodboard_id: int, *, hold: bool) -> MoodboardContent | None:
    """The moodboard as it stands. Held, none of its files can go before they are pinned."""
    if not moodboard_id or (hold and not await moodboards.hold(tx, team, moodboard_id)):
        return None
    moodboard = await moodboards.find(tx, team, moodboard_id)
    return moodboard.content if moodboard else None


def _bad_references(file_ids: Sequence[int | None], found: dict[int, File]) -> Violations:
    violations = Violations()
    for index, file_id in enumerate(file_ids):
        if file_id is None:
            violations.add(f"refs[{index}]", "is not an upload", NOT_AN_UPLOAD)
        elif file_id not in found:
            violations.add(f"refs[{index}]", "is not found", NOT_FOUND)
    return violations


def _readable(
    blobs: BlobStore, found: dict[int, File], asked: Collection[int]
) -> dict[int, ReadableFile]:
    """Off the loop: signing 2,000 URLs takes a while."""
    return {
        file_id: ReadableFile(found[file_id], blobs.read_url(found[file_id].blob_key))
        for file_id in asked
    }
