"""Jobs and their images: states, moves, rules. Standard library only.

States of a job, how it is entered, how it is left, who cleans up:

QUEUED     by EnqueueGeneration/EnqueueEdit, or back from RUNNING (lease lost, given back).
           Left by a claim, a cancel, or the reaper giving up. `admitted_at` says whether it holds
           one of its team's places; the sweep rings again for admitted jobs nobody claims.
RUNNING    by ClaimJob, with a lease and a new fence. Left by FinishJob, ReleaseJob, CancelJob, or
           the reaper when the lease expires.
SUCCEEDED  by FinishJob with every image DONE. Final.
FAILED     by FinishJob with an image FAILED, or by too many attempts or lost workers. Final.
CANCELED   by CancelJob. Final.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from libs.common.errors import FailedPreconditionError, FieldViolation, InvalidArgumentError
from services.enqueue.prompt import Prompt


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class ImageState(StrEnum):
    """Where one image stands; all but PENDING are final."""

    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class ArchiveState(StrEnum):
    """Where the zip of a job stands."""

    NONE = "NONE"
    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"


class ReviewState(StrEnum):
    """What a person said of a job's images."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


class EventKind(StrEnum):
    """What happened to a job."""

    QUEUED = "QUEUED"
    ADMITTED = "ADMITTED"
    STARTED = "STARTED"
    IMAGE_DONE = "IMAGE_DONE"
    IMAGE_FAILED = "IMAGE_FAILED"
    REQUEUED = "REQUEUED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    ARCHIVE_READY = "ARCHIVE_READY"
    ARCHIVE_FAILED = "ARCHIVE_FAILED"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED})

_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, *TERMINAL}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
}


def sources_of(target: JobState) -> tuple[JobState, ...]:
    """The states a job may come from to get to target; SQL guards the move with them."""
    return tuple(state for state in JobState if target in _MOVES[state])


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something failed: a stable word and one sentence for a person."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What the provider counted, in tokens, and what it cost, in millionths of a currency."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micros: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
            self.total_tokens + other.total_tokens,
            self.cost_micros + other.cost_micros,
        )


@dataclass(frozen=True, slots=True)
class MadeImage:
    """A stored image as a worker reports it: sizes in pixels and bytes."""

    file_id: int
    content_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    model: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Image:
    """One slot of a job; `shot` is its index in the first job, where this one is a retry."""

    index: int
    state: ImageState
    attempt: int
    made: MadeImage | None
    fault: Fault | None
    done_at: datetime | None
    shot: int
    rating: int = 0  # 1 to 5; 0: none


@dataclass(frozen=True, slots=True)
class InputImage:
    """One input of a job: its role (product, model, …) and its file."""

    role: str
    file_id: int


@dataclass(frozen=True, slots=True)
class Moodboard:
    """The moodboard as it stood at enqueue: ids and words only."""

    positive_file_ids: tuple[int, ...] = ()
    negative_file_ids: tuple[int, ...] = ()
    style_appendix: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    """The caller's own words, kept and never read."""

    product: str = ""
    variant: str = ""
    destination: str = ""
    workspace_session_id: str = ""
    template_name: str = ""
    source_task_id: str = ""


@dataclass(frozen=True, slots=True)
class Archive:
    """The zip of a job, as the packager reported it."""

    state: ArchiveState = ArchiveState.NONE
    file_id: int = 0
    filename: str = ""
    size_bytes: int = 0
    fault: Fault | None = None

    def replaces(self, kept: Archive) -> bool:
        """Whether it is news. READY stays, but for a zip built again: files' ids grow."""
        if kept.state is ArchiveState.READY:
            return self.state is ArchiveState.READY and self.file_id > kept.file_id
        return self != kept


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job is, from the day it was enqueued; never changes, but that a prompt is settled.

    Attributes:
        inputs: the input images in the order the prompt speaks of them.
        values: the workflow's validated input.
        pin_token: names the pins of the inputs at assets.
        batch_id: 0 for none.
        variant_index: its place in the batch, from 1; 0 for none.
        retry_of: the failed job it runs again; 0 for none.
        folder_id: where its images go; 0 for the team's default folder.
        moodboard_id: what the moodboard's snapshot was taken of; 0 for none.
        shots: which of the first job's images its own stand for; empty: one for one.
        shots_of: how many images the first job has; 0: as many as this one.
    """

    team: str
    type: str
    quality: str
    format: str
    schema_key: str
    values: Mapping[str, Any]
    aspect_ratio: str
    count: int
    inputs: tuple[InputImage, ...]
    moodboard: Moodboard | None
    prompt: Prompt
    priority: int
    labels: Labels
    pin_token: str
    batch_id: int = 0
    variant_index: int = 0
    retry_of: int = 0
    folder_id: int = 0
    moodboard_id: int = 0
    shots: tuple[int, ...] = ()
    shots_of: int = 0

    def shot(self, index: int) -> int:
        """Which of the first job's images the image of this index stands for."""
        return self.shots[index - 1] if self.shots else index

    @property
    def shot_count(self) -> int:
        """How many images the first job has."""
        return self.shots_of or self.count

    @property
    def lane(self) -> str:
        """The queue its doorbells go to."""
        return f"{self.type}.{self.quality}"

    def file_ids(self, role: str) -> tuple[int, ...]:
        """The inputs of one role, in order."""
        return tuple(i.file_id for i in self.inputs if i.role == role)

    def file_id(self, role: str) -> int:
        """The one input of a role, or 0."""
        return next(iter(self.file_ids(role)), 0)


@dataclass(frozen=True, slots=True)
class Review:
    """What a person said of a job's images; the last word stands."""

    state: ReviewState = ReviewState.PENDING
    reviewer: str = ""
    at: datetime | None = None
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """What a job set aside of its team's credits, one per image, and gave back at its end."""

    held: int
    released: int | None  # None: not ended


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands.

    Attributes:
        hold: None where the team had no account when the job was enqueued: it is never charged.
        rate_waits: claims given back because the provider took no more calls.
        rate_wait_until: when the governor lets it call again; past times mean nothing.
    """

    id: int
    spec: JobSpec
    state: JobState
    fence: int
    worker: str
    attempts: int
    max_attempts: int
    lost_workers: int
    dispatch_no: int
    last_sequence: int
    images_done: int
    images_failed: int
    fault: Fault | None
    archive: Archive
    created_at: datetime
    admitted_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    not_before: datetime | None
    dead: bool = False
    images: tuple[Image, ...] = field(default=())
    review: Review = Review()
    hold: Hold | None = None
    rate_waits: int = 0
    rate_wait_until: datetime | None = None

    def with_images(self, images: Iterable[Image]) -> Job:
        """The job with its slots, each told which shot it stands for."""
        if self.spec.shots:
            images = (replace(image, shot=self.spec.shot(image.index)) for image in images)
        return replace(self, images=tuple(images))

    @property
    def terminal(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL

    @property
    def final(self) -> bool:
        """Whether nothing more will happen, the zip included: the end of a watch."""
        return self.terminal and self.archive.state is not ArchiveState.PENDING

    @property
    def settled(self) -> bool:
        """Whether no image is PENDING."""
        return self.images_done + self.images_failed == self.spec.count


class Position(NamedTuple):
    """Where an event stands among those of all jobs, in the order in which commits became sure.

    Job ids begin at 1: (n, 0, 0) stands before every event of commit n, and behind those of n - 1.
    """

    commit_order: int
    job_id: int
    sequence: int

    def before(self, commit_order: int) -> bool:
        """Whether it stands before the events of a commit."""
        return self < (commit_order, 1)


@dataclass(frozen=True, slots=True)
class Event:
    """One numbered fact about a job."""

    job_id: int
    sequence: int
    kind: EventKind
    at: datetime
    image_index: int = 0
    file_id: int = 0
    attempt: int = 0
    fault: Fault | None = None
    commit_order: int = 0

    @property
    def position(self) -> Position:
        """Where it stands among the events of all jobs."""
        return Position(self.commit_order, self.job_id, self.sequence)


def outcome_of(job: Job) -> JobState:
    """How a settled job ends: SUCCEEDED with every image, else FAILED.

    Raises:
        FailedPreconditionError: IMAGES_PENDING, it is not settled.
    """
    if not job.settled:
        raise FailedPreconditionError("images are still pending", reason="IMAGES_PENDING")
    return JobState.SUCCEEDED if job.images_done == job.spec.count else JobState.FAILED


def cursor_past_end() -> InvalidArgumentError:
    """The refusal of a cursor that no event has reached yet."""
    violation = FieldViolation("after_sequence", "is past the last event")
    return InvalidArgumentError(
        "after_sequence is past the last event", reason="CURSOR_PAST_END", violations=[violation]
    )


def bad_cursor(description: str) -> InvalidArgumentError:
    """The refusal of a cursor over many jobs that no watch has given out."""
    return InvalidArgumentError(
        f"after_cursor {description}",
        reason="BAD_CURSOR",
        violations=[FieldViolation("after_cursor", description, "BAD_CURSOR")],
    )


def wants_archive(state: JobState, count: int) -> bool:
    """Whether a job that ends so gets a zip."""
    return state is JobState.SUCCEEDED and count > 1
