"""What the worker knows of a job and of one image to make; standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from libs.common.outcomes import POLICIES, Outcome
from services.worker.prices import Price, cost_micros

MAX_ENHANCEMENT_CHARS = 2000
MAX_PROMPT_CHARS = 20_000
MAX_WAIT_SECONDS = 30.0
"""A provider that asks for a longer pause gets the job handed back instead of a waiting worker."""
BEHIND_SECONDS = 30.0
"""By how much a job whose calls have just failed comes back after those that waited with it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An input image as the generator sees it.

    Attributes:
        role: product | model | background | base | reference | moodboard | avoid.
        file_id: which file it is, so that BAD_INPUT can name it.
        content_type: image/png, image/jpeg or image/webp.
        data: the encoded bytes.
        sha256: of the bytes, hex, as assets has it.
    """

    role: str
    file_id: int
    content_type: str
    data: bytes
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One generator call: make image `index` of `count`.

    Attributes:
        job_id: for logs only; generators draw nothing from it.
        index: 1..count.
        prompt: the whole text, the variation's line included.
        references: in the order the prompt speaks of them.
        aspect_ratio: `W:H` such as 3:4, or empty for the generator's own choice.
        quality: fast | high.
        format: png | jpeg | webp, what the job asks for; a generator that cannot choose
            ignores it, and nobody re-encodes.
    """

    job_id: int
    index: int
    count: int
    prompt: str
    references: tuple[Reference, ...]
    aspect_ratio: str
    quality: str
    format: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls took: tokens as the provider counted them, zeros where it says nothing.

    `cost_micros` is what they cost by the price list, in millionths of its currency.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micros: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
            self.total_tokens + other.total_tokens,
            self.cost_micros + other.cost_micros,
        )

    def priced(self, model: str, prices: Mapping[str, Price]) -> Usage:
        """With the cost of one call of the model that took this."""
        cost = cost_micros(prices, model, self.prompt_tokens, self.output_tokens)
        return replace(self, cost_micros=cost)


@dataclass(frozen=True, slots=True)
class Words:
    """What a generator would add to a prompt: to be checked with `enhanced` before it is used.

    Attributes:
        text: whatever a model may answer.
        model: which one; empty where none was asked.
        usage: what it took.
    """

    text: str
    model: str = ""
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One made image.

    Attributes:
        data: encoded bytes, untouched as they came.
        content_type: as the generator says; assets sniffs the bytes itself.
        model: which model made it.
        usage: what it took.
        extra_images: further images in the same answer, ignored.
        preview: true where no real model was at work (the offline generator).
    """

    data: bytes
    content_type: str
    model: str
    usage: Usage = Usage()
    extra_images: int = 0
    preview: bool = False


class GenerationError(Exception):
    """A try that made no image, by its outcome.

    Attributes:
        outcome: see `libs.common.outcomes`.
        message: one sentence for the team; never provider text with secrets.
        retry_after_seconds: what the provider asked for (RetryInfo, Retry-After), or None.
        detail: the provider's own category (a finish reason, an HTTP status), for logs.
    """

    def __init__(
        self,
        outcome: Outcome,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.detail = detail


class NoLeaveError(GenerationError):
    """No try was made: the model takes no more calls for longer than a worker should wait."""

    def __init__(self, wait_seconds: float) -> None:
        super().__init__(
            Outcome.RATE_LIMITED,
            "the model takes no more calls for now",
            retry_after_seconds=wait_seconds,
            detail="governor",
        )
        self._wait_seconds = wait_seconds

    def behind_others(self) -> NoLeaveError:
        """The same, with a wait by which jobs that wait for the model too have had their turn.

        A model that fails is tried by one call: were it always the same job's, and were that job
        why it fails, the model would stay closed for everybody.
        """
        return NoLeaveError(self._wait_seconds + BEHIND_SECONDS)


@dataclass(frozen=True, slots=True)
class CallGrant:
    """Calls that may be made now, and when to ask for the rest."""

    calls: int
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CallTally:
    """How calls of one model went: answered, refused as too many, failed at the provider."""

    ok: int = 0
    rate_limited: int = 0
    failed: int = 0
    retry_after_seconds: float = 0.0

    @property
    def bad(self) -> bool:
        """Whether all workers should hear of it soon."""
        return bool(self.rate_limited or self.failed)

    def __add__(self, other: CallTally) -> CallTally:
        """Both together."""
        return CallTally(
            self.ok + other.ok,
            self.rate_limited + other.rate_limited,
            self.failed + other.failed,
            max(self.retry_after_seconds, other.retry_after_seconds),
        )


def tally_of(fault: GenerationError | None) -> CallTally:
    """One call by how it ended; None for an image. A fault of our own says nothing of a model."""
    if fault is None:
        return CallTally(ok=1)
    match fault.outcome:
        case Outcome.RATE_LIMITED:
            return CallTally(rate_limited=1, retry_after_seconds=fault.retry_after_seconds or 0.0)
        case Outcome.OVERLOADED | Outcome.TIMED_OUT:
            return CallTally(failed=1)
        case Outcome.INTERNAL:
            return CallTally()
        case _:
            return CallTally(ok=1)


class Generator(Protocol):
    """What makes images, and finds words for them; see generators/offline.py and gemini.py."""

    @property
    def name(self) -> str:
        """`offline` or `gemini`."""
        ...

    def model_for(self, quality: str) -> str:
        """The model that images of a quality are asked of; empty where there is no provider."""
        ...

    @property
    def prompt_model(self) -> str:
        """The model that words are asked of; empty where there is no provider."""
        ...

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        """Make one image; raises GenerationError, and passes CancelledError on at once."""
        ...

    async def enhance(self, prompt: str) -> Words:
        """Words for light, lens and composition, to be added to a prompt; errors as generate."""
        ...

    async def close(self) -> None:
        """Give connections and threads back."""
        ...


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
