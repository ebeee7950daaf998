"""The gemini generator without a server: its settings, and how answers are read."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from libs.common.outcomes import Outcome
from services.worker.generation import GenerationError, Usage
from services.worker.generators.gemini import GeminiGenerator, GeminiSettings
from services.worker.generators.gemini_models import GEMINI_MODELS
from services.worker.generators.gemini_outcomes import read_answer, read_error


def test_the_key_and_the_proxy_are_never_shown() -> None:
    settings = GeminiSettings(api_key="hush-1", proxy_url="http://me:hush-2@proxy")
    assert "hush" not in repr(settings)
    assert "hush" not in repr(GeminiGenerator(settings))


@pytest.mark.parametrize(
    ("key", "timeout_seconds", "max_answer_bytes", "models"),
    [
        ("", 1.0, 1, {"fast": "m"}),
        ("hush\n", 1.0, 1, {"fast": "m"}),
        ("hüsh", 1.0, 1, {"fast": "m"}),
        ("hush", 0.0, 1, {"fast": "m"}),
        ("hush", float("inf"), 1, {"fast": "m"}),
        ("hush", 1.0, 0, {"fast": "m"}),
        ("hush", 1.0, 1, {}),
        ("hush", 1.0, 1, {"fast": ""}),
    ],
)
def test_settings_that_cannot_work_are_refused_without_repeating_them(
    key: str, timeout_seconds: float, max_answer_bytes: int, models: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="Gemini") as caught:
        GeminiSettings(
            api_key=key,
            timeout_seconds=timeout_seconds,
            max_answer_bytes=max_answer_bytes,
            models=models,
        )
    assert "hush" not in str(caught.value)


def test_importing_the_generator_loads_nothing_heavy() -> None:
    code = (
        "import sys, services.worker.generators.gemini\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('google', 'httpx2', 'PIL')])"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert out.stdout.strip() == b"[]"


def test_every_default_model_is_in_the_table() -> None:
    settings = GeminiSettings(api_key="a-key")
    for quality, model in settings.models.items():
        assert settings.image_sizes[quality] in GEMINI_MODELS[model].image_sizes
        assert "3:4" in GEMINI_MODELS[model].aspect_ratios


def test_a_retry_date_is_read_against_the_answer_s_own_date() -> None:
    headers = {
        "date": "Sat, 21 Nov 2026 04:00:00 GMT",
        "retry-after": "Sat, 21 Nov 2026 04:00:30 GMT",
    }
    assert read_error(429, None, headers).retry_after_seconds == 30.0
    assert (
        read_error(429, None, {"retry-after": headers["retry-after"]}).retry_after_seconds is None
    )
    assert read_error(429, None, {"retry-after": "x", "date": "y"}).retry_after_seconds is None


@pytest.mark.parametrize(
    "body",
    [
        '{"candidates": {"0": 1}}',
        '{"candidates": [7]}',
        '{"candidates": [{"content": {"parts": [null, 3, {"inlineData": {"data": 5}}]}}]}',
        '{"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png"}}]}}]}',
        '{"candidates": [{"content": {"parts": [{"fileData": {"fileUri": "http://x/y"}}]}}]}',
        '{"candidates": [{"content": {"parts": [{"inlineData":{"mimeType":"a/b","data":"AA"}}]}}]}',
        '{"candidates": [{"finishReason": ["SAFETY"]}], "usageMetadata": 3}',
    ],
)
def test_a_body_of_the_wrong_shape_is_no_image(body: str) -> None:
    with pytest.raises(GenerationError) as caught:
        read_answer(body, "m")
    assert caught.value.outcome is Outcome.NO_IMAGE


@pytest.mark.parametrize("body", ["", "\x00", "[" * 100_000, '"text"', '{"a": '])
def test_a_body_that_cannot_be_read_is_overloaded(body: str) -> None:
    with pytest.raises(GenerationError) as caught:
        read_answer(body, "m")
    assert caught.value.outcome is Outcome.OVERLOADED


@pytest.mark.parametrize("data", ["A", "AA*A", "====", "AAAA\n"])
def test_image_data_that_is_not_base64_is_overloaded(data: str) -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": data}}
    body = json.dumps({"candidates": [{"content": {"parts": [part]}}]})
    with pytest.raises(GenerationError) as caught:
        read_answer(body, "m")
    assert caught.value.outcome is Outcome.OVERLOADED


def test_words_of_the_provider_are_kept_short_and_printable() -> None:
    image = base64.b64encode(b"bytes").decode()
    part = {"inlineData": {"mimeType": "image/png", "data": image}}
    answer = {
        "candidates": [{"content": {"parts": [part]}, "finishReason": "x" * 1000}],
        "modelVersion": "evil\nmodel",
        "usageMetadata": {"promptTokenCount": -1, "totalTokenCount": True},
    }
    made = read_answer(json.dumps(answer), "asked-model")
    assert (made.data, made.model, made.usage) == (b"bytes", "asked-model", Usage())
