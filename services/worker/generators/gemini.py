"""The generator that asks Google's Gemini image models, one image per call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from libs.common.outcomes import Outcome
from services.worker.generation import GeneratedImage, GenerationError, ImageRequest, Words
from services.worker.generators.gemini_models import max_references
from services.worker.generators.gemini_outcomes import failure, read_answer, read_words

if TYPE_CHECKING:
    from services.worker.generators.gemini_sdk import GeminiSession

DEFAULT_MODELS: Mapping[str, str] = MappingProxyType(
    {"fast": "gemini-3.1-flash-image", "high": "gemini-3-pro-image"}
)
DEFAULT_PROMPT_MODEL = "gemini-3.1-flash-lite"
DEFAULT_IMAGE_SIZES: Mapping[str, str] = MappingProxyType({"fast": "1K", "high": "2K"})


@dataclass(frozen=True, slots=True)
class GeminiSettings:
    """How to reach Gemini.

    Attributes:
        api_key: printable ASCII; never shown.
        base_url: where the API is; None for Google's own address.
        models: quality → model name.
        image_sizes: quality → `512`, `1K`, `2K` or `4K`; a quality that is not named gets the
            model's own choice.
        prompt_model: the text model that enhances prompts.
        timeout_seconds: for one whole call, connecting included.
        max_answer_bytes: a larger answer is refused while it arrives. A 4K PNG in base64 is
            about 35 MB.
        proxy_url: the HTTP proxy to go through; may hold a password, so never shown.

    Raises:
        ValueError: for a value that cannot work; the message never repeats the value.
    """

    api_key: str = field(repr=False)
    base_url: str | None = None
    models: Mapping[str, str] = field(default_factory=lambda: DEFAULT_MODELS)
    image_sizes: Mapping[str, str] = field(default_factory=lambda: DEFAULT_IMAGE_SIZES)
    prompt_model: str = DEFAULT_PROMPT_MODEL
    timeout_seconds: float = 120.0
    max_answer_bytes: int = 96 * 1024 * 1024
    proxy_url: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        key = self.api_key
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("the Gemini API key must be printable ASCII without spaces")
        if not self.models or not all([*self.models.values(), self.prompt_model]):
            raise ValueError("a Gemini model must be named for each quality, and for prompts")
        if not 0 < self.timeout_seconds < float("inf"):
            raise ValueError("the Gemini timeout must be a positive number of seconds")
        if self.max_answer_bytes <= 0:
            raise ValueError("the Gemini answer limit must be a positive number of bytes")


class GeminiGenerator:
    """Makes one image per call with Gemini; the caller owns every retry.

    One client and its connections serve all calls, concurrent ones too, from the first call
    to `close`. Nothing heavy is loaded before the first call.
    """

    def __init__(self, settings: GeminiSettings) -> None:
        self._settings = settings
        self._session: GeminiSession | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @property
    def name(self) -> str:
        """`gemini`."""
        return "gemini"

    def model_for(self, quality: str) -> str:
        """The model of a quality; empty for a quality that has none."""
        return self._settings.models.get(quality, "")

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        """Make one image with exactly one HTTP request.

        The references go after the prompt in the given order, each behind its number and role: the
        order in which the prompt speaks of them (see the workflows of enqueue). More than the
        model takes are refused before anything is sent; the doors let none through.

        Further images in the answer are ignored and counted. The bytes are not looked into:
        whether they are an acceptable image is for assets to say.

        Raises:
            GenerationError: every outcome but STORAGE_UNAVAILABLE and WORKER_LOST.
            asyncio.CancelledError: passed on at once; the connection is closed, which tells
                the provider to stop.
            RuntimeError: after `close`.
        """
        model = self._settings.models.get(request.quality)
        if model is None:
            raise failure(Outcome.INTERNAL, "no model for this quality")
        most = max_references(model)
        if len(request.references) > most:
            raise GenerationError(
                Outcome.BAD_INPUT,
                f"The model takes at most {most} input images.",
                detail=f"{len(request.references)} references",
            )
        session = await self._open()
        asking = session.ask(
            model,
            request.prompt,
            request.references,
            aspect_ratio=request.aspect_ratio,
            image_size=self._settings.image_sizes.get(request.quality, ""),
        )
        body = await self._ask(session, asking)
        return await asyncio.to_thread(read_answer, body, model)

    @property
    def prompt_model(self) -> str:
        """The text model that is configured."""
        return self._settings.prompt_model

    async def enhance(self, prompt: str) -> Words:
        """Words for light, lens and composition by the text model, with one HTTP request.

        Our instruction is the system's, the prompt is the user's: what a team has written cannot
        pass for ours. The model has no tools, and sees no image and nothing of other jobs. Errors
        as generate; a blocked or broken-off answer is one too.
        """
        session = await self._open()
        body = await self._ask(session, session.ask_words(self.prompt_model, prompt))
        return await asyncio.to_thread(read_words, body, self.prompt_model)

    async def close(self) -> None:
        """Close the connections; calls still running end in OVERLOADED. Safe to repeat."""
        self._closed = True
        async with self._opening:  # a client that is just being opened is closed as well
            session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, session: GeminiSession, asking: Awaitable[str]) -> str:
        timeout_seconds = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asking
        except TimeoutError:
            raise failure(Outcome.TIMED_OUT, f"no answer in {timeout_seconds:g} s") from None
        except GenerationError:
            raise
        except Exception as error:
            if self._closed:
                raise failure(Outcome.OVERLOADED, "closed during the call") from None
            known = session.explain(error)
            if known is not None:
                raise known from None  # the provider's words stay out of every traceback
            raise failure(Outcome.INTERNAL, type(error).__name__) from error

    async def _open(self) -> GeminiSession:
        if self._session is None:
            async with self._opening:
                if self._closed:
                    raise RuntimeError("the generator is closed")
                if self._session is None:
                    # About half a second of imports and certificates: not on the event loop.
                    self._session = await asyncio.to_thread(_load, self._settings)
        return self._session


def _load(settings: GeminiSettings) -> GeminiSession:
    from services.worker.generators.gemini_sdk import (  # noqa: PLC0415 - heavy, so late
        GeminiSession,
    )

    return GeminiSession(settings)
