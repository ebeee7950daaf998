"""The prompt of a job: as its workflow built it, and made better. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_PROMPT_CHARS = 20_000


class PromptStrategy(StrEnum):
    """How a prompt is made better before the generator sees it.

    NONE      not at all.
    TEMPLATE  by fixed words, at enqueue.
    GEMINI    by the worker's text model, once per job, before its first image.
    """

    NONE = "NONE"
    TEMPLATE = "TEMPLATE"
    GEMINI = "GEMINI"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What all images of a job share.

    Attributes:
        original: as the workflow built it; empty in a draft.
        strategy: how it is made better; None only in a draft: as the service is set.
        enhanced: made better; empty where it could not be, or was not wanted.
        enhance_ms: how long that took; None while it is not settled.
    """

    original: str = ""
    strategy: PromptStrategy | None = None
    enhanced: str = ""
    enhance_ms: int | None = None

    @property
    def text(self) -> str:
        """As the generator gets it."""
        return self.enhanced or self.original

    @property
    def for_worker(self) -> bool:
        """Whether a worker is still to enhance it."""
        return self.strategy is PromptStrategy.GEMINI and self.enhance_ms is None
