"""What a generator is asked for and answers, and how its calls went; standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from libs.common.outcomes import Outcome
from services.worker.prices import Price, cost_micros

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
