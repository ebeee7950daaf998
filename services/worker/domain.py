"""What the worker knows of a job; standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.outcomes import POLICIES, Outcome
from services.worker.generation import GenerationError

MAX_ENHANCEMENT_CHARS = 2000
MAX_PROMPT_CHARS = 20_000
MAX_WAIT_SECONDS = 30.0
"""A provider that asks for a longer pause gets the job handed back instead of a waiting worker."""


@dataclass(slots=True)
class Lease:
    """A worker's hold on a job.

    Attributes:
        job_id: which job.
        fence: goes with every write.
        until: the worker's own monotonic time after which the job may be another's.
    """

    job_id: int
    fence: int
    until: float


@dataclass(frozen=True, slots=True)
class InputImage:
    """One input image of a job: its role and its file."""

    role: str
    file_id: int


@dataclass(frozen=True, slots=True)
class ImageToMake:
    """One missing image: its slot (from 1) and its whole prompt."""

    index: int
    prompt: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed job.

    Attributes:
        lease: the hold, renewed by the lease keeper.
        attempt: from 1.
        team: whom the worker acts for at assets.
        lane: type and quality.
        quality: fast | high.
        format: png | jpeg | webp.
        aspect_ratio: `W:H`, or empty.
        count: how many images the job has in all.
        inputs: in the order the prompt speaks of them.
        images: still to make.
        may_hand_back: attempts are left.
        prompt_to_enhance: what all images' prompts are made of, where it is still to be enhanced;
            else empty.
    """

    lease: Lease
    attempt: int
    team: str
    lane: str
    quality: str
    format: str
    aspect_ratio: str
    count: int
    inputs: tuple[InputImage, ...]
    images: tuple[ImageToMake, ...]
    may_hand_back: bool
    prompt_to_enhance: str = ""

    def hands_back(self, outcome: Outcome) -> bool:
        """Whether an image that ends so hands the job back instead of failing.

        An outcome that burns no attempt may always do so: it is not the job's fault.
        """
        policy = POLICIES[outcome]
        return policy.hands_back and (self.may_hand_back or not policy.burns_attempt)


def enhanced(prompt: str, words: str) -> str:
    """The prompt with a generator's words as its last line; empty where they are of no use.

    The prompt itself stays as it is: the words are a model's, made of what a team wrote, and may
    add to the rules that the workflow has set but never replace them.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    if not line or len(line) > MAX_ENHANCEMENT_CHARS:
        return ""
    whole = f"{prompt}\n{line}"
    return whole if len(whole) <= MAX_PROMPT_CHARS else ""


@dataclass(frozen=True, slots=True)
class HandBack:
    """Why a job is given back to wait: the outcome, a sentence, and the least wait (0: usual)."""

    outcome: Outcome
    message: str
    retry_after_seconds: float = 0.0


def merged(faults: Sequence[GenerationError]) -> HandBack:
    """One hand-back for all faults of a job: the longest wait, and an attempt burned if any is."""
    worst = next((f for f in faults if POLICIES[f.outcome].burns_attempt), faults[0])
    wait = max(fault.retry_after_seconds or 0.0 for fault in faults)
    return HandBack(worst.outcome, worst.message, wait)


def wait_before_next_try(
    fault: GenerationError, tries: int, backoff_seconds: float, *, hands_back: bool
) -> float | None:
    """Seconds to wait before this image is tried again; None when the tries are used up.

    STORAGE_UNAVAILABLE has had its tries: the same bytes were offered again and again, for
    longer than a new image would stay worth its price.

    Args:
        fault: how the last try ended.
        tries: made so far, that one included.
        backoff_seconds: the usual wait.
        hands_back: the job may be handed back for this fault, so a long wait needs no worker.
    """
    if fault.outcome is Outcome.STORAGE_UNAVAILABLE:
        return None
    if tries >= POLICIES[fault.outcome].tries:
        return None
    asked = fault.retry_after_seconds or 0.0
    if asked > MAX_WAIT_SECONDS and hands_back:
        return None
    return max(min(asked, MAX_WAIT_SECONDS), backoff_seconds)


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input file's facts: where to read it (a secret), its type, size and SHA-256 (hex)."""

    file_id: int
    blob_url: str
    content_type: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A generated image as assets keeps it.

    Attributes:
        dropped: assets had the slot's file from an earlier attempt; our bytes were not needed.
    """

    file_id: int
    content_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    dropped: bool


class BadInputsError(Exception):
    """Input files that assets does not have (any more); `file_ids` names them."""

    def __init__(self, file_ids: Sequence[int]) -> None:
        super().__init__("input files are missing")
        self.file_ids = tuple(file_ids)


class JobOverError(Exception):
    """The job is over or another's: stop at once, record nothing."""
