"""StoreGenerated: a job's image becomes a file, once per slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.db import Tx
from libs.common.errors import FailedPreconditionError
from libs.common.group_commit import GroupCommit
from services.assets.domain import (
    File,
    FileKind,
    Making,
    NewFile,
    Slot,
    generated_filename,
)
from services.assets.imaging import Inspected, provenance_xmp
from services.assets.receiving import Chunks, Places, Received
from services.assets.store import endings, files
from services.assets.store.endings import JobSlot, KnownJob
from services.assets.usecases.deps import Deps, content_of, store

PREVIEW_TOOL = "contentshop offline preview"


@dataclass(frozen=True, slots=True)
class Generated:
    """What a worker says of an image, checked.

    Attributes:
        team: the job's.
        slot: which image it is.
        size_bytes: of what follows, exactly.
        sha256: likewise, lower-case hex.
        making: what it was made of.
        prompt: to be written into the file; empty: nothing is.
    """

    team: str
    slot: Slot
    size_bytes: int
    sha256: str
    making: Making
    prompt: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The slot's file, and whether it was there before."""

    file: File
    already: bool


class _SlotTakenError(Exception):
    """Another write of the slot was first."""

    def __init__(self, file: File) -> None:
        super().__init__()
        self.file = file


class StoreGenerated:
    """Takes an image in, judges and labels it, and stores it; the first write of a slot wins.

    Args:
        deps: shared means.
        places: images taken in at once.
    """

    def __init__(self, deps: Deps, places: Places) -> None:
        self._deps = deps
        self._places = places
        self.looks: GroupCommit[JobSlot, KnownJob | None] = GroupCommit(self._look)

    async def __call__(self, image: Generated, chunks: Chunks) -> Stored:
        """The slot's file; where there is one already, the bytes are not even read.

        Raises:
            InvalidArgumentError: what is wrong with the image.
            FailedPreconditionError: JOB_ENDED.
            DeadlineExceededError: UPLOAD_STALLED.
            ResourceExhaustedError: SERVER_BUSY, STORAGE_FULL.
            UnavailableError: nothing is known of the result; send it again.
        """
        job = await self.looks.submit((image.team, image.slot.job_id, image.slot.image_index))
        if job is not None and job.ended:
            raise _job_ended()
        if job is not None and job.file is not None:
            return Stored(job.file, already=True)
        figures = self._deps.figures
        async with self._places.place(image.team):
            chunks.progressed()  # waiting for the place was not the worker's doing
            with Received(
                image.size_bytes, memory_bytes=figures.spool_bytes, folder=figures.spool_folder
            ) as received:
                await received.take(chunks)
                inspected = await self._deps.inspector.inspect(
                    received.data,
                    sha256=image.sha256,
                    declared_type="",
                    limits=figures.generated,
                    xmp=_label(image.slot, image.prompt),
                )
                try:
                    file = await self._store(image, inspected, known=job is not None)
                except _SlotTakenError as taken:
                    return Stored(taken.file, already=True)
                return Stored(file, already=False)

    async def _look(self, slots: Sequence[JobSlot]) -> Sequence[KnownJob | None]:
        """What is known of the jobs of images that came at the same time."""
        async with self._deps.db.read(*sorted({team for team, _, _ in slots})) as tx:
            known = await endings.look(tx, set(slots))
        return [known.get(slot) for slot in slots]

    async def _store(self, image: Generated, inspected: Inspected, *, known: bool) -> File:
        team, slot = image.team, image.slot

        async def write(tx: Tx, blob_key: str) -> File:
            if not await endings.hold_open(tx, team, slot.job_id, known=known):
                raise _job_ended()
            name = generated_filename(slot, inspected.content_type)
            kind = FileKind.GENERATED
            new = NewFile(team, kind, name, blob_key, content_of(inspected), slot, image.making)
            file = await files.add(tx, new)
            if file is None:
                first = await files.find_slot(tx, team, slot.job_id, slot.image_index)
                assert first is not None  # committed; deleting it needs the job's end
                raise _SlotTakenError(first)
            return file

        return await store(self._deps, team, FileKind.GENERATED, inspected, write)


def _label(slot: Slot, prompt: str) -> bytes:
    return provenance_xmp(
        creator_tool=PREVIEW_TOOL if slot.preview else slot.model or "contentshop",
        preview=slot.preview,
        job_id=slot.job_id,
        image_index=slot.image_index,
        prompt=prompt,
    )


def _job_ended() -> FailedPreconditionError:
    return FailedPreconditionError("the job is over; the image was dropped", reason="JOB_ENDED")
