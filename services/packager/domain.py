"""Archives: states, moves, rules. Standard library only.

States of an archive, how it is entered, how it is left, who cleans up:

PENDING  by `job.ended` with archive_wanted, or by CreateArchive (also from FAILED, and from READY
         where the file is gone). Left when the zip is stored, or given up after too many
         attempts. A builder holds it by a lease and a fence; when the lease runs out another one
         takes it.
READY    by a stored zip. Left by CreateArchive alone, when assets has its file no more: it was
         deleted, or removed by age. Until then a download of it is NOT_FOUND.
FAILED   by giving up. Left by CreateArchive, which tries again, and by `job.ended` with
         archive_wanted after enqueue was told of the failure: it wants the zip once more.

A READY or FAILED archive of a job is reported to enqueue at least once, and again when enqueue asks
again. Retention removes the rows of both after some days. `hidden_at` is no state: a READY archive
whose images may not be shown (any more) is kept and not handed out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from libs.common.errors import FailedPreconditionError

MIN_JOB_IMAGES = 2
GIB = 1024**3
MAX_ZIP_BYTES = 5 * GIB  # an S3 takes no larger single PUT, and assets asks for no larger one


class ArchiveState(StrEnum):
    """Where an archive stands."""

    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"


_MOVES: dict[ArchiveState, frozenset[ArchiveState]] = {
    ArchiveState.PENDING: frozenset({ArchiveState.READY, ArchiveState.FAILED}),
    ArchiveState.READY: frozenset({ArchiveState.PENDING}),
    ArchiveState.FAILED: frozenset({ArchiveState.PENDING}),
}


def sources_of(target: ArchiveState) -> tuple[ArchiveState, ...]:
    """The states an archive may come from to get to target; SQL guards the move with them."""
    return tuple(state for state in ArchiveState if target in _MOVES[state])


class Reason(StrEnum):
    """Why an archive FAILED; a stable word for callers."""

    INPUT_MISSING = "INPUT_MISSING"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    TOO_LARGE = "ARCHIVE_TOO_LARGE"
    INTERNAL = "INTERNAL"


_MESSAGES = {
    Reason.INPUT_MISSING: "an image of it is not there any more",
    Reason.STORAGE_UNAVAILABLE: "the storage could not be reached or had no room",
    Reason.DATA_LOSS: "the bytes of an image are not those that were stored",
    Reason.TOO_LARGE: "the zip would be larger than 5 GiB; download its images one by one",
    Reason.INTERNAL: "the zip could not be built",
}
# A damaged read may be the wire's fault once; twice it is the blob's, and waiting helps nobody.
_MOST_ATTEMPTS = {Reason.DATA_LOSS: 2, Reason.TOO_LARGE: 1}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something failed: a stable word and one sentence for a person."""

    reason: str
    message: str


def fault_of(reason: Reason) -> Fault:
    """The reason with its sentence."""
    return Fault(reason.value, _MESSAGES[reason])


def gives_up(reason: Reason, attempts: int, max_attempts: int) -> bool:
    """Whether an archive is FAILED after this many attempts, the last of which failed so."""
    return attempts >= min(_MOST_ATTEMPTS.get(reason, max_attempts), max_attempts)


def check_zip_size(size_bytes: int) -> None:
    """Raises FailedPreconditionError ARCHIVE_TOO_LARGE for a zip that no store would take."""
    if size_bytes > MAX_ZIP_BYTES:
        raise FailedPreconditionError("the zip is too large", reason=Reason.TOO_LARGE.value)


class SourceKind(StrEnum):
    """What kind of thing an archive is of."""

    JOB = "JOB"
    BATCH = "BATCH"
    FOLDER = "FOLDER"


@dataclass(frozen=True, slots=True)
class Source:
    """What an archive is of, by id, within its team."""

    kind: SourceKind
    id: int


@dataclass(frozen=True, slots=True)
class ArchiveImage:
    """An image that goes in: its index from 1 in its job, variant or folder, and its file."""

    index: int
    file_id: int


@dataclass(frozen=True, slots=True)
class Section:
    """Images that stand together, in order.

    Attributes:
        images: at least one.
        variant_index: from 1, in a batch, where a section is a folder of the zip; else 0.
        variant: the shop's word for it; may be empty.
    """

    images: tuple[ArchiveImage, ...]
    variant_index: int = 0
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into an archive: sections in the zip's order, and the source's name for people."""

    sections: tuple[Section, ...]
    name: str = ""

    @property
    def images(self) -> tuple[ArchiveImage, ...]:
        """All images, in the zip's order."""
        return tuple(image for section in self.sections for image in section.images)

    def key(self, *more: str) -> str:
        """Equal for equal contents (and equal further words), else different."""
        rows = [
            [section.variant_index, section.variant, [[i.index, i.file_id] for i in section.images]]
            for section in self.sections
        ]
        return hashlib.sha256(json.dumps([rows, *more]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class WantedArchive:
    """An archive as it is asked for.

    Attributes:
        stamp_ms: the time in its name, since 1970.
        key: what makes it another archive of the same source; empty for a job, which has one.
    """

    team: str
    source: Source
    contents: Contents
    stamp_ms: int
    key: str

    @property
    def filename(self) -> str:
        """What it is called."""
        return f"{_PREFIXES[self.source.kind]}-{self.source.id}-{self.stamp_ms}.zip"


_PREFIXES = {
    SourceKind.JOB: "generation",
    SourceKind.BATCH: "batch",
    SourceKind.FOLDER: "folder",
}


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that is over, with its made images by index; finish_time_ms since 1970."""

    team: str
    job_id: int
    images: tuple[ArchiveImage, ...]
    finish_time_ms: int
    hidden: bool = False

    def wanted(self) -> WantedArchive:
        """Its archive.

        Raises:
            FailedPreconditionError: ARCHIVE_NOT_READY, its images may not be shown;
                ARCHIVE_NOT_APPLICABLE, it made fewer than two.
        """
        if self.hidden:
            raise _not_shown()
        if len(self.images) < MIN_JOB_IMAGES:
            raise _not_applicable("the job made fewer than two images")
        source = Source(SourceKind.JOB, self.job_id)
        contents = Contents((Section(self.images),))
        return WantedArchive(self.team, source, contents, self.finish_time_ms, key="")


@dataclass(frozen=True, slots=True)
class EndedBatch:
    """A batch whose every job is over: the made images that may be shown, by variant."""

    team: str
    batch_id: int
    name: str
    sections: tuple[Section, ...]
    finish_time_ms: int

    def wanted(self) -> WantedArchive:
        """Its archive, another one once it made other images; ARCHIVE_NOT_APPLICABLE with none."""
        contents = Contents(tuple(part for part in self.sections if part.images), self.name)
        if not contents.sections:
            raise _not_applicable("the batch made no image that may be shown")
        source = Source(SourceKind.BATCH, self.batch_id)
        return WantedArchive(self.team, source, contents, self.finish_time_ms, contents.key())


@dataclass(frozen=True, slots=True)
class FolderImages:
    """The images of a folder as it stands, oldest first."""

    team: str
    folder_id: int
    name: str
    file_ids: tuple[int, ...]

    def wanted(self, asked_at: datetime, request_id: str) -> WantedArchive:
        """Its archive: a new one for each request_id, and for each content where there is none.

        Raises:
            FailedPreconditionError: ARCHIVE_NOT_APPLICABLE, it is empty.
        """
        if not self.file_ids:
            raise _not_applicable("the folder has no image that may be shown")
        images = tuple(ArchiveImage(n, file_id) for n, file_id in enumerate(self.file_ids, start=1))
        contents = Contents((Section(images),), self.name)
        stamp_ms = int(asked_at.timestamp() * 1000)
        source = Source(SourceKind.FOLDER, self.folder_id)
        return WantedArchive(self.team, source, contents, stamp_ms, contents.key(request_id))


def _not_applicable(message: str) -> FailedPreconditionError:
    return FailedPreconditionError(message, reason="ARCHIVE_NOT_APPLICABLE")


def _not_shown() -> FailedPreconditionError:
    return FailedPreconditionError("the images are not approved", reason="ARCHIVE_NOT_READY")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """A file to go into a zip, as assets knows it; blob_url is a secret, sizes in bytes, pixels."""

    file_id: int
    blob_url: str = field(repr=False)
    content_type: str
    size_bytes: int
    width: int
    height: int
    sha256: str
    crc32: int


@dataclass(frozen=True, slots=True)
class WritePlace:
    """Where a zip may be written; write_url is a secret, used once."""

    blob_key: str
    write_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredArchive:
    """Where a zip can be read, and what it must be; blob_url is a secret."""

    blob_url: str = field(repr=False)
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class WrittenZip:
    """A whole zip in the blob store that may not be a file of assets yet."""

    blob_key: str
    size_bytes: int
    sha256: str
    crc32: int


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive as it stands.

    Attributes:
        images_written: by the attempt under way; grows within an attempt, all of them once READY.
        file_id: at assets, 0 before READY.
        attempts: begun so far since it was asked for.
        fence: grows with each attempt and retry; every write of a builder carries it.
        written: the zip of an earlier attempt that only needs to be made a file.
        report_failures: reports in vain since the last one that arrived.
        hidden_at: when it was last heard that its images may not be shown; None: they may.
    """

    id: int
    team: str
    source: Source
    state: ArchiveState
    filename: str
    image_count: int
    images_written: int
    file_id: int
    size_bytes: int
    fault: Fault | None
    created_at: datetime
    finished_at: datetime | None
    attempts: int
    fence: int
    written: WrittenZip | None
    report_failures: int
    hidden_at: datetime | None

    @property
    def final(self) -> bool:
        """Whether nobody works at it."""
        return self.state is not ArchiveState.PENDING

    @property
    def moment(self) -> tuple[int, bool, int]:
        """Grows with every change a watcher sees, so that of two readings the newer is known."""
        return self.fence, self.final, self.images_written

    def check_ready(self) -> None:
        """Raises FailedPreconditionError ARCHIVE_NOT_READY or ARCHIVE_FAILED unless READY."""
        if self.state is ArchiveState.PENDING:
            raise FailedPreconditionError("the archive is being built", reason="ARCHIVE_NOT_READY")
        if self.state is ArchiveState.FAILED:
            raise FailedPreconditionError(
                "the archive could not be built",
                reason="ARCHIVE_FAILED",
                metadata={"reason": self.fault.reason if self.fault else Reason.INTERNAL.value},
            )
        if self.hidden_at is not None:
            raise _not_shown()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at an archive, under its lease and fence, and what goes in."""

    archive: Archive
    contents: Contents


def in_order(images: Sequence[ArchiveImage]) -> bool:
    """Whether the images stand by index, from 1 up, each once, each with a file."""
    indices = [image.index for image in images]
    return (
        all(image.index >= 1 and image.file_id >= 1 for image in images)
        and sorted(set(indices)) == indices
    )
