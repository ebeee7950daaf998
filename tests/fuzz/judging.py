"""Makes a call, and says what is wrong with how it was answered."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as pb
from google.rpc import status_pb2

from libs.common.errors import DOMAIN
from libs.common.status import DETAILS_KEY
from tests.fuzz.calls import METHODS, Call
from tests.fuzz.house import CALL_SECONDS, House
from tests.fuzz.messages import MARK
from tests.support.databases import ROOT

TRIES = 4
# What a message written by us for the caller never contains.
LEAKS = (
    *(MARK, "SELECT ", "INSERT ", "UPDATE ", "Traceback", ".py", "Error(", "Exception", "0x"),
    *("sqlite", "psycopg", "sqlalchemy", "/tmp", "/root", "google.protobuf", "X-Amz", "eyJ"),
)
# The bytes themselves or their order are to blame, not a field: there is no field to name.
WITHOUT_FIELD = {
    *("MALFORMED_MESSAGE", "EMPTY_FILE", "UNSUPPORTED_IMAGE_TYPE", "TYPE_MISMATCH"),
    *("TRAILING_DATA", "IMAGE_TOO_LARGE", "ANIMATED_NOT_ALLOWED", "IMAGE_CORRUPT"),
    *("CHECKSUM_MISMATCH", "SIZE_MISMATCH", "FILE_TOO_LARGE", "HEADER_MISPLACED"),
}
# Never an answer of ours, whatever is asked.
NEVER = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.DATA_LOSS,
}


@cache
def known_reasons() -> frozenset[str]:
    """The words that the protos and the docs name."""
    pages = [*(ROOT / "protos").rglob("*.proto"), *(ROOT / "docs").rglob("*.md")]
    text = " ".join(Path(page).read_text() for page in pages)
    return frozenset(re.findall(r"\b[A-Z][A-Z0-9_]{3,}\b", text))


@dataclass
class Answer:
    """How a call ended."""

    code: grpc.StatusCode
    message: str = ""
    raw: bytes | None = None
    body: bytes = b""


@dataclass
class Tally:
    """What was called, how it ended, and what was wrong."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def by_code(self) -> dict[str, int]:
        """Calls by status, most first."""
        sums: Counter[str] = Counter()
        for (_, code), count in self.calls.items():
            sums[code] += count
        return dict(sums.most_common())


async def make(house: House, call: Call) -> Answer:
    """Makes a call, up to its first answer; the client's patience is far past the server's."""
    for _ in range(TRIES):
        try:
            return Answer(grpc.StatusCode.OK, body=await _send(house, call))
        except grpc.aio.AioRpcError as error:
            raw = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
            text = error.details() or ""
            answer = Answer(error.code(), text, raw if isinstance(raw, bytes) else None)
        # A write that crosses the answer makes grpc.aio say INTERNAL, without our details.
        if answer.raw is not None or answer.code is not grpc.StatusCode.INTERNAL:
            break
    return answer


async def _send(house: House, call: Call) -> bytes:
    channel = house.channel_of(call.method)
    service = call.method.split(".")[1]
    token = house.token(call.caller, service, call.team)
    how: dict[str, Any] = {
        "metadata": (("authorization", f"Bearer {token}"),),
        "timeout": CALL_SECONDS,
    }
    descriptor = METHODS[call.method]
    if descriptor.client_streaming:
        many: Any = channel.stream_unary(call.method)
        return bytes(await many(iter(call.messages), **how))
    if descriptor.server_streaming:
        opened: Any = channel.unary_stream(call.method)
        stream = opened(call.messages[0], **how)
        try:
            async for _ in stream:
                if "Download" not in descriptor.name:
                    break  # watches go on for as long as there is something to watch
        finally:
            stream.cancel()
        return b""
    one: Any = channel.unary_unary(call.method)
    return bytes(await one(call.messages[0], **how))


async def judge(house: House, call: Call, tally: Tally) -> Answer:
    """Makes a call and puts it on the tally, with what is wrong with its answer."""
    answer = await make(house, call)
    tally.calls[call.method, answer.code.name] += 1
    wrong = "" if answer.code is grpc.StatusCode.OK else _wrong(call, answer, tally)
    if wrong:
        tally.failures.append(f"{wrong}\n  {answer.code.name} {answer.message!r}\n  {call!r}")
    return answer


def _wrong(call: Call, answer: Answer, tally: Tally) -> str:
    if answer.code in NEVER:
        return "a code that must never be"
    if answer.raw is None:
        return _not_ours(answer)
    try:
        status = status_pb2.Status.FromString(answer.raw)
    except DecodeError:
        return "details that are none"
    details = [_unpacked(packed) for packed in status.details]
    infos = [detail for detail in details if isinstance(detail, pb.ErrorInfo)]
    if (status.code, status.message) != (answer.code.value[0], answer.message):
        return "details of another status"
    if [info.domain for info in infos] != [DOMAIN]:
        return f"{len(infos)} ErrorInfo"
    tally.reasons[infos[0].reason] += 1
    return _wrong_details(answer, infos[0].reason, details) or _leak(call, answer, details)


def _not_ours(answer: Answer) -> str:
    """The transport answers some calls itself; nothing else may come without our details."""
    if answer.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "it hangs"
    too_large = answer.message.startswith("Received message larger than max")
    fine = too_large and answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    return "" if fine else "not an error of ours"


def _unpacked(packed: Any) -> Any:
    name = packed.TypeName()
    descriptor_pool.Default().FindMessageTypeByName(name)
    detail = getattr(pb, name.rpartition(".")[2])()
    assert packed.Unpack(detail)
    return detail


def _wrong_details(answer: Answer, reason: str, details: list[Any]) -> str:
    if reason not in known_reasons():
        return f"the reason {reason} is named nowhere"
    kinds = {type(detail) for detail in details}
    fields = [v.field for d in details if isinstance(d, pb.BadRequest) for v in d.field_violations]
    if answer.code is grpc.StatusCode.INVALID_ARGUMENT:
        if not fields and reason not in WITHOUT_FIELD:
            return f"{reason} names no field"
        if any(not re.fullmatch(r"[a-z0-9_.\[\]?]+", name) for name in fields):
            return f"fields {fields}"
    elif fields:
        return "field violations, and not INVALID_ARGUMENT"
    wanted = {
        grpc.StatusCode.FAILED_PRECONDITION: pb.PreconditionFailure,
        grpc.StatusCode.RESOURCE_EXHAUSTED: pb.QuotaFailure,
        grpc.StatusCode.NOT_FOUND: pb.ResourceInfo,
        grpc.StatusCode.UNAVAILABLE: pb.RetryInfo,
    }.get(answer.code)
    return "" if wanted is None or wanted in kinds else f"no {wanted.__name__}"


def _leak(call: Call, answer: Answer, details: list[Any]) -> str:
    whole = answer.message + " ".join(str(detail) for detail in details)
    found = [leak for leak in LEAKS if leak in whole]
    return f"it says {found} to {call.method}" if found else ""
