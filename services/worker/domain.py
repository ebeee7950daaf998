"""What the worker knows of one image to make; standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from libs.common.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Reference:
    """An input image as the generator sees it.

    Attributes:
        role: product | model | background | base | reference | moodboard | avoid.
        file_id: which file it is, so that BAD_INPUT can name it.
        content_type: image/png, image/jpeg or image/webp.
        data: the encoded bytes.
    """

    role: str
    file_id: int
    content_type: str
    data: bytes


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
    """What the provider counted, in tokens; zeros where it says nothing."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


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


class Generator(Protocol):
    """What makes images; implementations: generators/offline.py, generators/gemini.py."""

    @property
    def name(self) -> str:
        """`offline` or `gemini`."""
        ...

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        """Make one image; raises GenerationError, and passes CancelledError on at once."""
        ...

    async def close(self) -> None:
        """Give connections and threads back."""
        ...
