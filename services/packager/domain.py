"""Archives: states, moves, rules. Standard library only.

States of an archive, how it is entered, how it is left, who cleans up:

PENDING  by `job.ended` with archive_wanted, or by CreateArchive (also from FAILED). Left when the
         zip is stored, or given up after too many attempts. A builder holds it by a lease and a
         fence; when the lease runs out another one takes it.
READY    by a stored zip. Final.
FAILED   by giving up. Left by CreateArchive, which tries again.

A READY or FAILED archive is reported to enqueue at least once, and again when enqueue asks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from libs.common.errors import FailedPreconditionError

MIN_IMAGES = 2


class ArchiveState(StrEnum):
    """Where an archive stands."""

    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"


_MOVES: dict[ArchiveState, frozenset[ArchiveState]] = {
    ArchiveState.PENDING: frozenset({ArchiveState.READY, ArchiveState.FAILED}),
    ArchiveState.READY: frozenset(),
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
    INTERNAL = "INTERNAL"


_MESSAGES = {
    Reason.INPUT_MISSING: "an image of the job is not there any more",
    Reason.STORAGE_UNAVAILABLE: "the storage could not be reached or had no room",
    Reason.DATA_LOSS: "the bytes of an image are not those that were stored",
    Reason.INTERNAL: "the zip could not be built",
}
# A damaged read may be the wire's fault once; twice it is the blob's, and waiting helps nobody.
_DATA_LOSS_ATTEMPTS = 2


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
    most = _DATA_LOSS_ATTEMPTS if reason is Reason.DATA_LOSS else max_attempts
    return attempts >= min(most, max_attempts)


@dataclass(frozen=True, slots=True)
class JobImage:
    """A made image of a job: its index from 1, and its file."""

    index: int
    file_id: int


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that is over, with its made images by index; finish_time_ms since 1970."""

    team: str
    job_id: int
    images: tuple[JobImage, ...]
    finish_time_ms: int

    @property
    def filename(self) -> str:
        """What its archive is called."""
        return f"generation-{self.job_id}-{self.finish_time_ms}.zip"

    def check_applicable(self) -> None:
        """Raises FailedPreconditionError ARCHIVE_NOT_APPLICABLE below two images."""
        if len(self.images) < MIN_IMAGES:
            raise FailedPreconditionError(
                "the job made fewer than two images", reason="ARCHIVE_NOT_APPLICABLE"
            )


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
        images: what goes in, in order.
        file_id: at assets, 0 before READY.
        attempts: begun so far since it was asked for.
        fence: grows with each attempt and retry; every write of a builder carries it.
        written: the zip of an earlier attempt that only needs to be made a file.
        report_failures: reports in vain since the last one that arrived.
    """

    id: int
    team: str
    job_id: int
    state: ArchiveState
    filename: str
    images: tuple[JobImage, ...]
    file_id: int
    size_bytes: int
    fault: Fault | None
    created_at: datetime
    finished_at: datetime | None
    attempts: int
    fence: int
    written: WrittenZip | None
    report_failures: int

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


def in_order(images: Sequence[JobImage]) -> bool:
    """Whether the images stand by index, from 1 up, each once, each with a file."""
    indices = [image.index for image in images]
    return (
        all(image.index >= 1 and image.file_id >= 1 for image in images)
        and sorted(set(indices)) == indices
    )
