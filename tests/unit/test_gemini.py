"""The gemini generator against the stub, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from libs.common.outcomes import Outcome
from services.worker.generation import GenerationError, ImageRequest, Reference, Usage
from services.worker.generators.gemini import GeminiGenerator, GeminiSettings
from services.worker.generators.gemini_outcomes import MESSAGES
from tests.fakes.gemini_behaviours import Behaviour, bomb_png, draw
from tests.fakes.gemini_stub import GeminiStub

KEY = "stub-key"
# A word the stub puts where the provider speaks; it may never reach a team.
LEAK = "SECRET-PROVIDER-WORDS"


@pytest.fixture
async def stub() -> AsyncIterator[GeminiStub]:
    async with GeminiStub(api_key=KEY) as server:
        yield server


@pytest.fixture
async def generator(stub: GeminiStub) -> AsyncIterator[GeminiGenerator]:
    made = GeminiGenerator(GeminiSettings(api_key=KEY, base_url=stub.base_url))
    yield made
    await made.close()


def a_request(
    *, prompt: str = "a chair on a beach", aspect_ratio: str = "3:4", quality: str = "fast"
) -> ImageRequest:
    references = (
        Reference("product", 11, "image/png", draw("product", "1:1", 32, "png")),
        Reference("model", 12, "image/jpeg", draw("model", "1:1", 32, "jpeg")),
    )
    return ImageRequest(
        job_id=7,
        index=1,
        count=4,
        prompt=prompt,
        references=references,
        aspect_ratio=aspect_ratio,
        quality=quality,
        format="png",
    )


async def refused(
    generator: GeminiGenerator, request: ImageRequest | None = None
) -> GenerationError:
    with pytest.raises(GenerationError) as caught:
        await generator.generate(request or a_request())
    error = caught.value
    assert error.message == MESSAGES[error.outcome]  # a fixed sentence, never the provider's
    assert LEAK not in error.message + error.detail
    return error


def named(value: object) -> str | None:
    """A behaviour's name in a test id: what it sets, in letters."""
    if not isinstance(value, Behaviour):
        return None
    parts = [value.kind, value.reason, value.status_name, value.message, value.text]
    words = [part for part in parts if part] + [str(value.status)] * (value.status != 200)
    return ascii("-".join(words + ["thoughts"] * value.thoughts))


async def eventually(holds: Callable[[], bool], *, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - the stub is a server, not an event
            await asyncio.sleep(0.005)


# --- a good answer


async def test_makes_one_real_image_and_keeps_the_usage(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    made = await generator.generate(a_request())
    with Image.open(io.BytesIO(made.data)) as image:
        assert (image.format, image.size) == ("PNG", (48, 64))
    assert made.content_type == "image/png"
    assert made.model == "gemini-3.1-flash-image"
    assert made.usage == Usage(prompt_tokens=17, output_tokens=1290, total_tokens=1307)
    assert made.extra_images == 0
    assert not made.preview
    assert generator.name == "gemini"
    assert stub.count == 1


async def test_sends_the_prompt_then_each_reference_with_its_label(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    request = a_request()
    await generator.generate(request)
    call = stub.calls[0]
    assert call.prompt == request.prompt
    assert call.part_kinds == ["text", "text", "image", "text", "image"]
    assert [(seen.label, seen.mime_type) for seen in call.references] == [
        ("Reference 1 (product):", "image/png"),
        ("Reference 2 (model):", "image/jpeg"),
    ]
    hashes = [hashlib.sha256(item.data).hexdigest() for item in request.references]
    assert [seen.sha256 for seen in call.references] == hashes
    assert call.modalities == ["IMAGE"]
    assert call.headers["x-server-timeout"] == "120"
    assert call.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("quality", "model", "size"),
    [("fast", "gemini-3.1-flash-image", "1K"), ("high", "gemini-3-pro-image", "2K")],
)
async def test_quality_chooses_model_and_size(
    stub: GeminiStub, generator: GeminiGenerator, quality: str, model: str, size: str
) -> None:
    await generator.generate(a_request(quality=quality, aspect_ratio="21:9"))
    call = stub.calls[0]
    assert (call.model, call.image_size, call.aspect_ratio) == (model, size, "21:9")


async def test_ratio_and_size_are_sent_only_when_set(stub: GeminiStub) -> None:
    settings = GeminiSettings(api_key=KEY, base_url=stub.base_url, image_sizes={})
    generator = GeminiGenerator(settings)
    await generator.generate(a_request(aspect_ratio=""))
    await generator.close()
    assert (stub.calls[0].aspect_ratio, stub.calls[0].image_size) == ("", "")


async def test_an_unknown_quality_makes_no_call(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    assert (await refused(generator, a_request(quality="best"))).outcome is Outcome.INTERNAL
    assert stub.count == 0


async def test_base64_of_both_alphabets_is_taken(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    stub.script(Behaviour(format="jpeg", urlsafe=True, times=1), Behaviour(format="jpeg"))
    one = await generator.generate(a_request())
    two = await generator.generate(a_request())
    for made in (one, two):
        assert made.content_type == "image/jpeg"
        with Image.open(io.BytesIO(made.data)) as image:
            image.load()


async def test_further_images_are_ignored_and_counted(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    stub.script(Behaviour(count=3))
    made = await generator.generate(a_request())
    assert made.data == draw("a chair on a beach 1 0", "3:4", 64, "png")
    assert made.extra_images == 2


async def test_thoughts_are_skipped_and_their_tokens_counted(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    stub.script(Behaviour(thoughts=True, text="here it is"))
    made = await generator.generate(a_request())
    assert made.data == draw("a chair on a beach 1 0", "3:4", 64, "png")
    assert made.extra_images == 0
    assert made.usage.output_tokens == 1390


async def test_bytes_come_through_untouched_whatever_they_are(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    stub.script(Behaviour(kind="corrupt", times=1), Behaviour(kind="bomb"))
    whole = draw("a chair on a beach 1 0", "3:4", 64, "png")
    assert (await generator.generate(a_request())).data == whole[: len(whole) // 2]
    bomb = (await generator.generate(a_request())).data
    assert bomb == bomb_png()
    assert len(bomb) < 20_000


async def test_one_client_and_one_connection_serve_every_call(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    for _ in range(3):
        await generator.generate(a_request())
    assert (stub.count, stub.connections) == (3, 1)
    stub.script(Behaviour(held=True))
    async with asyncio.TaskGroup() as calls:
        for _ in range(5):
            calls.create_task(generator.generate(a_request()))
        await eventually(lambda: stub.count == 8)
        assert stub.open_connections == 5
        stub.release()


# --- blocks and empty answers


@pytest.mark.parametrize(
    "reason",
    [
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    ],
)
async def test_a_blocking_finish_reason(
    stub: GeminiStub, generator: GeminiGenerator, reason: str
) -> None:
    stub.script(Behaviour(kind="finish", reason=reason, text=LEAK))
    error = await refused(generator)
    assert (error.outcome, error.detail) == (Outcome.OUTPUT_BLOCKED, reason)
    assert stub.count == 1


@pytest.mark.parametrize("reason", ["SAFETY", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "OTHER"])
async def test_a_blocked_prompt(stub: GeminiStub, generator: GeminiGenerator, reason: str) -> None:
    stub.script(Behaviour(kind="prompt_block", reason=reason))
    error = await refused(generator)
    assert (error.outcome, error.detail) == (Outcome.PROMPT_BLOCKED, reason)
    assert stub.count == 1


@pytest.mark.parametrize(
    ("behaviour", "outcome", "detail"),
    [
        (Behaviour(kind="empty"), Outcome.NO_IMAGE, "no candidates"),
        (Behaviour(kind="finish"), Outcome.NO_IMAGE, "STOP"),
        (Behaviour(kind="finish", reason="NO_IMAGE"), Outcome.NO_IMAGE, "NO_IMAGE"),
        (Behaviour(kind="finish", reason="IMAGE_OTHER"), Outcome.NO_IMAGE, "IMAGE_OTHER"),
        (Behaviour(kind="finish", reason="MAX_TOKENS"), Outcome.NO_IMAGE, "MAX_TOKENS"),
        (Behaviour(kind="finish", reason="OF_NEXT_YEAR"), Outcome.NO_IMAGE, "OF_NEXT_YEAR"),
        (Behaviour(kind="finish", thoughts=True), Outcome.NO_IMAGE, "STOP"),
        (Behaviour(kind="text", text=LEAK), Outcome.TEXT_ONLY, "STOP"),
        (Behaviour(kind="text", text=" \n"), Outcome.NO_IMAGE, "STOP"),
        (
            Behaviour(kind="finish", reason="PUP_LIMITED_DISABLED"),
            Outcome.UNAUTHORIZED,
            "PUP_LIMITED_DISABLED",
        ),
    ],
    ids=named,
)
async def test_an_answer_without_an_image(
    stub: GeminiStub,
    generator: GeminiGenerator,
    behaviour: Behaviour,
    outcome: Outcome,
    detail: str,
) -> None:
    stub.script(behaviour)
    error = await refused(generator)
    assert (error.outcome, error.detail) == (outcome, detail)


async def test_continuation_is_not_followed(stub: GeminiStub, generator: GeminiGenerator) -> None:
    stub.script(Behaviour(kind="finish", reason="CONTINUATION"))
    assert (await refused(generator)).outcome is Outcome.NO_IMAGE
    assert stub.count == 1


# --- errors


@pytest.mark.parametrize(
    ("behaviour", "outcome", "detail"),
    [
        (Behaviour(kind="raw", status=429, text=LEAK), Outcome.RATE_LIMITED, "429"),
        (Behaviour(kind="error", status=500), Outcome.OVERLOADED, "500 INTERNAL"),
        (Behaviour(kind="error", status=503, message=LEAK), Outcome.OVERLOADED, "503 UNAVAILABLE"),
        (Behaviour(kind="error", status=504), Outcome.OVERLOADED, "504 DEADLINE_EXCEEDED"),
        (Behaviour(kind="raw", status=502, text=f"<html>{LEAK}"), Outcome.OVERLOADED, "502"),
        (
            Behaviour(kind="raw", status=502, text="\xff\xfe\xe9"),
            Outcome.OVERLOADED,
            "UnicodeDecodeError",
        ),
        (
            Behaviour(kind="error", status=401, message=LEAK),
            Outcome.UNAUTHORIZED,
            "401 UNAUTHENTICATED",
        ),
        (
            Behaviour(kind="error", status=403, message=LEAK),
            Outcome.UNAUTHORIZED,
            "403 PERMISSION_DENIED",
        ),
        (
            Behaviour(kind="error", status=400, reason="API_KEY_INVALID", message=LEAK),
            Outcome.UNAUTHORIZED,
            "400 INVALID_ARGUMENT",
        ),
        (
            Behaviour(kind="error", status=400, status_name="FAILED_PRECONDITION"),
            Outcome.UNAUTHORIZED,
            "400 FAILED_PRECONDITION",
        ),
        (
            Behaviour(kind="error", status=400, message="Provided image is not valid."),
            Outcome.BAD_INPUT,
            "400 INVALID_ARGUMENT",
        ),
        (
            Behaviour(kind="error", status=400, message=LEAK),
            Outcome.INTERNAL,
            "400 INVALID_ARGUMENT",
        ),
        (Behaviour(kind="error", status=413), Outcome.BAD_INPUT, "413 INVALID_ARGUMENT"),
        (Behaviour(kind="error", status=404), Outcome.INTERNAL, "404 NOT_FOUND"),
        (Behaviour(kind="raw", status=302, text=""), Outcome.INTERNAL, "302"),
        (Behaviour(kind="garbage"), Outcome.OVERLOADED, "undecodable body"),
        (Behaviour(kind="raw", status=200, text="[1]"), Outcome.OVERLOADED, None),
        (Behaviour(kind="raw", status=200, text=""), Outcome.OVERLOADED, None),
        (Behaviour(kind="disconnect"), Outcome.OVERLOADED, None),
        (Behaviour(kind="cut"), Outcome.OVERLOADED, "RemoteProtocolError"),
    ],
    ids=named,
)
async def test_a_failed_call_is_one_call_with_its_outcome(
    stub: GeminiStub,
    generator: GeminiGenerator,
    behaviour: Behaviour,
    outcome: Outcome,
    detail: str | None,
) -> None:
    stub.script(behaviour)
    error = await refused(generator)
    assert error.outcome is outcome
    assert detail is None or error.detail == detail
    assert error.retry_after_seconds is None
    assert LEAK not in str(error.__cause__)
    assert stub.count == 1  # the SDK retries nothing by itself


@pytest.mark.parametrize(
    ("retry_delay", "retry_after", "wait"),
    [
        ("13s", "", 13.0),
        ("1.5s", "9", 1.5),  # RetryInfo is the finer of the two
        ("", "7", 7.0),
        ("99999999s", "", 3600.0),
        ("soon", "-1", None),
        ("", "", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_wait_the_provider_asks_for_is_passed_on(
    stub: GeminiStub,
    generator: GeminiGenerator,
    *,
    status: int,
    retry_delay: str,
    retry_after: str,
    wait: float | None,
) -> None:
    asked = Behaviour(kind="error", status=status, retry_delay=retry_delay, retry_after=retry_after)
    stub.script(asked)
    error = await refused(generator)
    assert error.outcome is {429: Outcome.RATE_LIMITED, 503: Outcome.OVERLOADED}[status]
    assert error.retry_after_seconds == wait
    assert stub.count == 1


async def test_the_generator_works_on_after_every_failure(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    kinds = ("cut", "disconnect", "garbage", "empty")
    stub.script(*(Behaviour(kind=kind, times=1) for kind in kinds))
    for _ in kinds:
        await refused(generator)
    assert (await generator.generate(a_request())).data
    assert stub.count == 5


async def test_an_input_that_is_no_image_is_bad_input(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    broken = Reference("product", 11, "image/png", b"not an image")
    request = a_request()
    wrong_type = Reference("product", 11, "image/tiff", request.references[0].data)
    for reference in (broken, wrong_type):
        asked = ImageRequest(7, 1, 1, "x", (reference,), "", "fast", "png")
        assert (await refused(generator, asked)).outcome is Outcome.BAD_INPUT
    assert [call.state for call in stub.calls] == ["refused", "refused"]


async def test_a_ratio_the_model_does_not_take_is_our_fault_not_the_image_s(
    stub: GeminiStub, generator: GeminiGenerator
) -> None:
    error = await refused(generator, a_request(aspect_ratio="5:7"))
    assert (error.outcome, error.detail) == (Outcome.INTERNAL, "400 INVALID_ARGUMENT")
    assert stub.count == 1


async def test_a_wrong_key_is_unauthorized(stub: GeminiStub) -> None:
    generator = GeminiGenerator(GeminiSettings(api_key="revoked", base_url=stub.base_url))
    assert (await refused(generator)).outcome is Outcome.UNAUTHORIZED
    await generator.close()


async def test_a_refused_connection_is_overloaded() -> None:
    with socket.socket() as taken:  # and nobody listens on it
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        generator = GeminiGenerator(GeminiSettings(api_key=KEY, base_url=address))
        error = await refused(generator)
        assert (error.outcome, error.detail) == (Outcome.OVERLOADED, "ConnectError")
        await generator.close()


async def test_an_answer_past_the_limit_is_refused_while_it_arrives(stub: GeminiStub) -> None:
    settings = GeminiSettings(api_key=KEY, base_url=stub.base_url, max_answer_bytes=2000)
    generator = GeminiGenerator(settings)
    stub.script(Behaviour(kind="bomb", times=1))
    assert (await refused(generator)).outcome is Outcome.INVALID_OUTPUT
    assert (await generator.generate(a_request())).data
    await generator.close()


# --- time


async def test_a_hang_times_out_and_closes_the_connection(stub: GeminiStub) -> None:
    settings = GeminiSettings(api_key=KEY, base_url=stub.base_url, timeout_seconds=2.0)
    generator = GeminiGenerator(settings)
    stub.script(Behaviour(kind="hang", times=1))
    error = await refused(generator)
    assert (error.outcome, error.detail) == (Outcome.TIMED_OUT, "no answer in 2 s")
    await eventually(lambda: stub.calls[0].state == "gone")
    assert stub.open_connections == 0
    assert stub.calls[0].headers["x-server-timeout"] == "10"  # the API refuses less
    assert (await generator.generate(a_request())).data
    await generator.close()


@pytest.mark.parametrize("kind", ["hang", "image"])
async def test_cancelling_passes_at_once_and_closes_the_request(
    stub: GeminiStub, generator: GeminiGenerator, kind: str
) -> None:
    stub.script(Behaviour(kind=kind, held=True))
    caller = asyncio.Event()

    async def call() -> None:
        try:
            await generator.generate(a_request())
        except asyncio.CancelledError:
            caller.set()
            raise

    async with asyncio.TaskGroup() as calls:
        task = calls.create_task(call())
        await eventually(lambda: stub.count == 1)
        task.cancel()  # it is held for ever
        await eventually(lambda: stub.calls[0].state == "gone" and caller.is_set())
    assert task.cancelled()
    assert stub.open_connections == 0


async def test_close_ends_connections_and_running_calls(stub: GeminiStub) -> None:
    generator = GeminiGenerator(GeminiSettings(api_key=KEY, base_url=stub.base_url))
    await generator.generate(a_request())
    assert stub.open_connections == 1
    stub.script(Behaviour(kind="hang"))
    async with asyncio.TaskGroup() as calls:
        task = calls.create_task(refused(generator))
        await eventually(lambda: stub.count == 2)
        await generator.close()
    assert task.result().outcome is Outcome.OVERLOADED
    await eventually(lambda: stub.open_connections == 0)
    await generator.close()
    with pytest.raises(RuntimeError, match="closed"):
        await generator.generate(a_request())


async def test_close_before_the_first_call_loads_nothing() -> None:
    await GeminiGenerator(GeminiSettings(api_key=KEY)).close()


# --- the stub as a process of its own


async def test_the_stub_runs_as_a_process_and_obeys_its_control(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"kind": "finish", "reason": "SAFETY", "match": "forbidden"}]))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.gemini_stub"),
        *("--port", "0", "--delay-ms", "5", "--behaviours", str(script)),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            port = json.loads(await process.stdout.readline())["port"]
            generator = GeminiGenerator(
                GeminiSettings(api_key=KEY, base_url=f"http://127.0.0.1:{port}")
            )
            forbidden = a_request(prompt="a forbidden chair")
            assert (await refused(generator, forbidden)).outcome is Outcome.OUTPUT_BLOCKED
            assert (await generator.generate(a_request())).data
            order = {"reset": True, "behaviours": [{"kind": "error", "status": 429, "times": 1}]}
            assert await http(port, "POST /__control", order) == (200, {})
            assert (await refused(generator)).outcome is Outcome.RATE_LIMITED
            assert (await generator.generate(forbidden)).data
            status, seen = await http(port, "GET /__calls")
            assert (status, seen["count"], seen["waiting"]) == (200, 2, 0)
            assert seen["calls"][1]["prompt"] == "a forbidden chair"
            assert KEY not in json.dumps(seen)
            assert (await http(port, "POST /__control", {"behaviours": [{"kind": "?"}]}))[0] == 400
            await generator.close()
            process.terminate()
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def http(port: int, line: str, body: object = None) -> tuple[int, dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode() if body is not None else b""
    writer.write(f"{line} HTTP/1.1\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
    answer = json.loads(await reader.readexactly(length))
    writer.close()
    await writer.wait_closed()
    return int(head.split(" ")[1]), answer
