"""Bad requests: the exact answer to each, and that nothing of the request is said back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.grpc_client import open_channel
from tests.integration.enqueue.front_door import (
    DESCRIPTORS,
    ENQUEUE,
    EXECUTION,
    Refusal,
    answer,
    get_job,
    headers_for,
    refusal,
    status_of,
)
from tests.integration.enqueue.house import House, generation, open_house
from tests.support.databases import sqlite_database

CANARY = "Canary-7b1f"
GENERATE, EDIT = f"{ENQUEUE}EnqueueGeneration", f"{ENQUEUE}EnqueueEdit"
LIST, WATCH, EVENTS = f"{ENQUEUE}ListJobs", f"{ENQUEUE}WatchJob", f"{ENQUEUE}ListJobEvents"
PRODUCT = [{"file_id": 1}]
Enqueue = enqueue_pb2.EnqueueGenerationRequest
Edit = enqueue_pb2.EnqueueEditRequest
Listing: Any = enqueue_pb2.ListJobsRequest  # most of these are wrong on purpose
Watch = enqueue_pb2.WatchJobRequest
Page = enqueue_pb2.ListJobEventsRequest


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house on SQLite for requests that leave nothing behind."""
    urls = sqlite_database("enqueue", tmp_path_factory.mktemp("bad-input"))
    async with open_house(urls) as house:
        house.team()
        yield house


@pytest.fixture(scope="module")
async def door(shared: House) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it."""
    channel = open_channel(f"127.0.0.1:{shared.app.port}")
    yield channel
    await channel.close()


async def refused(channel: grpc.aio.Channel, method: str, body: bytes | Message) -> Refusal:
    got = await refusal(channel, method, body, headers_for(method))
    whole = got.message + " ".join(str(detail) for detail in got.details.values())
    assert CANARY not in whole
    return got


# Bytes that are no message.


def _field(number: int, payload: bytes) -> bytes:
    length = len(payload)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + payload


def _deep(depth: int) -> bytes:
    """A request whose input.x is a list in a list in a list …"""
    value = b"\x11" + bytes(8)
    for _ in range(depth):
        value = _field(6, _field(1, value))
    return _field(7, _field(1, _field(1, b"x") + _field(2, value)))


MALFORMED = {
    "garbage": b"\xff" * 50,
    "invalid UTF-8": _field(1, b"\xff\xfe" + CANARY.encode()),
    "a lone surrogate": _field(1, b"\xed\xa0\x80"),
    "truncated": _field(1, CANARY.encode())[:-3],
    "a length past the end": b"\x0a\xff\xff\xff\xff\x07a",
    "a varint without end": b"\x08" + b"\xff" * 11,
    "field number 0": b"\x00\x01",
    "a group without end": b"\x0b",
}


@pytest.mark.parametrize("method", DESCRIPTORS)
async def test_bytes_that_are_no_message(door: grpc.aio.Channel, method: str) -> None:
    fields = DESCRIPTORS[method].input_type.fields_by_number
    for name, body in MALFORMED.items():
        if name == "field number 0" and not fields:
            continue  # protobuf skips what it does not know before it looks at the number
        if "UTF-8" in name or "surrogate" in name:
            first = fields.get(1)
            if first is None or first.type != first.TYPE_STRING:
                continue
        got = await refused(door, method, body)
        assert (got.code, got.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE"), name


async def test_depth_is_limited(door: grpc.aio.Channel) -> None:
    assert (await refused(door, GENERATE, _deep(60))).reason == "MALFORMED_MESSAGE"
    assert "input.x" in (await refused(door, GENERATE, _deep(20))).fields


async def test_more_than_4_mib_is_refused_by_the_transport(door: grpc.aio.Channel) -> None:
    for method in (f"{ENQUEUE}GetJob", WATCH):
        error = await status_of(door, method, bytes(4 * 1024 * 1024 + 1), headers_for(method))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in (error.details() or "")


async def test_metadata_past_16_kib_is_refused_by_the_transport(door: grpc.aio.Channel) -> None:
    method = f"{ENQUEUE}GetJob"
    headers = (*headers_for(method), ("x-long", "x" * 20_000))
    error = await status_of(door, method, get_job(), headers)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    headers = (*headers_for(method), ("x-long", "x" * 4_000))
    assert (await refusal(door, method, get_job(), headers)).code == "NOT_FOUND"


async def test_what_is_not_there_is_unimplemented(door: grpc.aio.Channel) -> None:
    for method in (
        f"{ENQUEUE}DropTables",
        "/contentshop.enqueue.v1.Nothing/GetJob",
        "/x",
        "/grpc.health.v1.Health/Drop",
    ):
        error = await status_of(door, method, b"", headers_for(GENERATE))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert CANARY not in (error.details() or "")


# Requests of teams.


def _input(**values: Any) -> Enqueue:
    return generation(input=values)


def _number(value: float) -> Enqueue:
    request = generation()
    request.input.fields["purpose"].list_value.values.add().struct_value.fields[
        "x"
    ].number_value = value
    return request


URLS = {
    "web": f"http://example.org/{CANARY}.png",
    "data": f"data:image/png;base64,{CANARY}",
    "file": f"file:///etc/{CANARY}",
    "cloud metadata": "http://169.254.169.254/latest/meta-data/",
    "localhost": "http://localhost:50051/",
    "IPv6": "http://[::1]/api/uploads/1/file",
    "decimal": "http://2130706433/api/uploads/1/file",
    "user": "http://127.0.0.1@evil/api/uploads/1/file",
    "NUL": "/api/uploads/1/file\x00",
    "empty": "",
    "long": "/" * 3_000,
}
WRONG: dict[str, tuple[str, Message, list[str]]] = {
    **{
        f"variations {count}": (
            GENERATE,
            generation(number_of_variations=count),
            ["number_of_variations"],
        )
        for count in (0, -1, 11, 10**6)
    },
    "no product": (GENERATE, generation(product_images=[]), ["product_images"]),
    "five products": (GENERATE, generation(product_images=PRODUCT * 5), ["product_images"]),
    "an empty reference": (GENERATE, generation(product_images=[{}]), ["product_images[0]"]),
    "file id 0": (
        GENERATE,
        generation(product_images=[{"file_id": 0}]),
        ["product_images[0].file_id"],
    ),
    "file id -1": (GENERATE, generation(model_image={"file_id": -1}), ["model_image.file_id"]),
    "seven moods": (
        GENERATE,
        generation(moodboard={"positive_images": PRODUCT * 7, "negative_images": PRODUCT * 3}),
        ["moodboard.positive_images", "moodboard.negative_images"],
    ),
    "a long mood": (
        GENERATE,
        generation(moodboard={"style_appendix": CANARY * 100}),
        ["moodboard.style_appendix"],
    ),
    "quality 99": (GENERATE, generation(quality=99), ["quality"]),
    "format -1": (GENERATE, generation(format=-1), ["format"]),
    "priority 101": (GENERATE, generation(priority=101), ["priority"]),
    "an unknown workflow": (GENERATE, generation(schema_key=CANARY), ["schema_key"]),
    "an edit's workflow": (GENERATE, generation(schema_key="image.edit.v1"), ["schema_key"]),
    "a long label": (GENERATE, generation(labels={"product": "x" * 201}), ["labels.product"]),
    "ANSI in a label": (GENERATE, generation(labels={"variant": "\x1b[31m"}), ["labels.variant"]),
    "C1 in a label": (GENERATE, generation(labels={"variant": "\x9b31m"}), ["labels.variant"]),
    "CRLF in a label": (GENERATE, generation(labels={"variant": "a\r\nb"}), ["labels.variant"]),
    "NUL in a label": (GENERATE, generation(labels={"destination": "a\0"}), ["labels.destination"]),
    "an unknown key": (GENERATE, _input(**{f"{CANARY} '\n": 1}), ["input.?"]),
    "a wrong choice": (GENERATE, _input(purpose=CANARY), ["input.purpose"]),
    "a list for a choice": (GENERATE, _input(aspect_ratio=["1:1"]), ["input.aspect_ratio"]),
    "a number for a text": (GENERATE, _input(custom_instructions=1), ["input.custom_instructions"]),
    "a long text": (
        GENERATE,
        _input(custom_instructions="x" * 2001),
        ["input.custom_instructions"],
    ),
    "a long input": (GENERATE, _input(custom_instructions=CANARY * 2_000), ["input"]),
    "NaN within": (GENERATE, _number(float("nan")), ["input"]),
    "infinity within": (GENERATE, _number(float("inf")), ["input"]),
    "all at once": (
        GENERATE,
        generation(product_images=[], priority=-101, labels={"product": "\0"}),
        ["product_images", "priority", "labels.product"],
    ),
    "request_id of 65": (GENERATE, generation(request_id="x" * 65), ["request_id"]),
    "request_id not ASCII": (GENERATE, generation(request_id="é"), ["request_id"]),
    "request_id with a space": (EDIT, Edit(request_id=f"a {CANARY}"), ["request_id"]),
    "an edit of nothing": (EDIT, Edit(), ["base_image", "input.instruction"]),
    "page of -1": (LIST, Listing(page_size=-1), ["page_size"]),
    "page of 201": (LIST, Listing(page_size=201), ["page_size"]),
    "no state": (LIST, Listing(states=[0]), ["states[0]"]),
    "state 99": (LIST, Listing(states=[1, 99]), ["states[1]"]),
    "many states": (LIST, Listing(states=[1] * 1000), ["states"]),
    "type 99": (LIST, Listing(type=99), ["type"]),
    "a long variant": (LIST, Listing(variant="%" * 201), ["variant"]),
    "the year 10,000": (LIST, Listing(created_from={"seconds": 253_402_300_800}), ["created_from"]),
    "before the year 1": (LIST, Listing(created_before={"seconds": -(2**62)}), ["created_before"]),
    "negative nanoseconds": (
        LIST,
        Listing(created_from={"seconds": 1, "nanos": -1}),
        ["created_from"],
    ),
    "a made-up token": (LIST, Listing(page_token=CANARY), ["page_token"]),
    "a token not ASCII": (LIST, Listing(page_token="ü"), ["page_token"]),
    "a long token": (LIST, Listing(page_token="A" * 10**6), ["page_token"]),
    "cursor -1": (WATCH, Watch(job_id=1, after_sequence=-1), ["after_sequence"]),
    "events after -1": (EVENTS, Page(job_id=1, after_sequence=-1), ["after_sequence"]),
    "1,001 events": (EVENTS, Page(job_id=1, page_size=1001), ["page_size"]),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_request_names_its_fields(door: grpc.aio.Channel, name: str) -> None:
    method, request, fields = WRONG[name]
    got = await refused(door, method, request)
    assert got.code == "INVALID_ARGUMENT"
    assert got.fields == fields


@pytest.mark.parametrize("name", URLS)
async def test_no_url_but_an_uploads_is_an_image(
    shared: House, door: grpc.aio.Channel, name: str
) -> None:
    request = generation(product_images=[{"file_id": 1}, {"upload_url": URLS[name]}])
    got = await refused(door, GENERATE, request)
    assert got.code == "INVALID_ARGUMENT"
    assert got.fields == ["product_images[1].upload_url"]
    jobs = (await shared.team().call("ListJobs", Listing())).jobs
    assert not jobs


async def test_counts_are_looked_at_before_items(door: grpc.aio.Channel) -> None:
    empty_images = b"\x1a\x00" * 2_000_000
    assert (await refused(door, GENERATE, empty_images)).fields == ["product_images"]
    method = f"{EXECUTION}RenewLeases"
    leases = _field(1, b"w") + b"\x12\x00" * 1_900_000
    assert (await refused(door, method, leases)).fields == ["leases"]
    lanes = _field(1, b"w") + b"\x1a\x00" * 1_900_000
    assert (await refused(door, method, lanes)).fields == ["lanes"]


async def test_a_count_of_2_to_the_40_is_not_a_count(door: grpc.aio.Channel) -> None:
    huge = generation().SerializeToString() + b"\x40" + b"\x80" * 5 + b"\x20"  # 2**40 as an int32
    assert (await refused(door, GENERATE, huge)).fields == ["number_of_variations"]


async def test_five_hundred_wrong_fields_still_fit_an_answer(door: grpc.aio.Channel) -> None:
    request = generation(input={f"key_{n}": 1 for n in range(500)})
    got = await refused(door, GENERATE, request)
    assert got.message == "500 fields are wrong"
    assert 10 < len(got.fields) < 500


async def test_filters_match_literally(shared: House) -> None:
    team = shared.team("literal")
    await team.generate(labels={"variant": "blue%_'"})
    for variant, found in (("blue%_'", 1), ("blue%", 0), ("%", 0), ("' OR 1=1 --", 0)):
        page = await team.call("ListJobs", Listing(variant=variant))
        assert len(page.jobs) == found


async def test_page_tokens_are_of_one_list(shared: House, door: grpc.aio.Channel) -> None:
    team = shared.team("pages")
    for _ in range(3):
        await team.generate()
    token = (await team.call("ListJobs", Listing(page_size=2))).next_page_token
    own, other = headers_for(LIST, "pages"), headers_for(LIST, "red")
    flipped = token[:-1] + ("A" if token[-1] != "A" else "B")
    for headers, request in (
        (other, Listing(page_token=token)),
        (own, Listing(page_token=token, variant="x")),
        (own, Listing(page_token=token, states=[job_pb2.JOB_STATE_QUEUED])),
        (own, Listing(page_token=flipped)),
        (own, Listing(page_token=token + "=")),
        (own, Listing(page_token=token + "!\n")),
        (own, Listing(page_token=token[4:])),
    ):
        got = await refusal(door, LIST, request, headers)
        assert (got.code, got.reason) == ("INVALID_ARGUMENT", "BAD_PAGE_TOKEN")
        assert got.fields == ["page_token"]
    assert await answer(door, LIST, Listing(page_token=token, page_size=1), own)


async def test_limits_and_states_carry_their_details(tmp_path: Path) -> None:
    urls = sqlite_database("enqueue", tmp_path)
    limits = {"QUEUED_JOBS_PER_TEAM": "1", "LIVE_JOBS_PER_TEAM": "1"}
    async with open_house(urls, **limits) as house:
        team = house.team()
        first = await team.generate(request_id="a")
        await team.generate()
        channel = team.client.channel
        full = await refused(channel, GENERATE, generation())
        assert (full.code, full.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        reused = await refused(channel, GENERATE, generation(request_id="a", priority=1))
        assert (reused.code, reused.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")
        # The key's answer comes before any other check, a full queue too.
        assert (await team.generate(request_id="a")).id == first.id
        await house.worker().make_all(first.id)
        cancel = f"{ENQUEUE}CancelJob"
        ended = await refused(channel, cancel, enqueue_pb2.CancelJobRequest(job_id=first.id))
        assert (ended.code, ended.reason) == ("FAILED_PRECONDITION", "JOB_TERMINAL")


async def test_a_dependency_that_is_away_is_not_described(tmp_path: Path) -> None:
    urls = sqlite_database("enqueue", tmp_path)
    async with open_house(urls, ASSETS_TARGET="127.0.0.1:9") as house:
        got = await refused(house.team().client.channel, GENERATE, generation())
        assert got.code == "UNAVAILABLE"
        assert "127.0.0.1" not in str(got.wire)
