"""Calls as a stranger makes them: raw bytes, any headers; and what a refusal must look like."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as pb
from google.rpc import status_pb2

from contentshop.enqueue.v1 import enqueue_pb2, execution_pb2
from libs.common.errors import DOMAIN
from libs.common.grpc_server import access_rules, service_descriptors
from libs.common.status import DETAILS_KEY
from services.enqueue.app import SERVICES
from tests.integration.enqueue.house import SECRET, USER_SECRET

ENQUEUE, EXECUTION, OPS = (f"/{name}/" for name in SERVICES)
DESCRIPTORS = {
    f"/{service.full_name}/{method.name}": method
    for service in service_descriptors(SERVICES)
    for method in service.methods
}
RULES = access_rules(service_descriptors(SERVICES))
_DETAILS: tuple[type[Message], ...] = (
    pb.ErrorInfo,
    pb.BadRequest,
    pb.ResourceInfo,
    pb.PreconditionFailure,
    pb.QuotaFailure,
    pb.RetryInfo,
)
# What a message written by us for the caller never contains.
_LEAKS = (
    "SELECT ",
    "INSERT ",
    "UPDATE ",
    "Traceback",
    ".py",
    "Error(",
    "sqlite",
    "psycopg",
    "/tmp",
)
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Refusal:
    """A status that is not OK, as it came over the wire."""

    code: str
    message: str
    details: dict[type[Message], Any]
    wire: tuple[Any, ...]

    @property
    def reason(self) -> str:
        return str(self.details[pb.ErrorInfo].reason)

    @property
    def fields(self) -> list[str]:
        return [v.field for v in self.details[pb.BadRequest].field_violations]


def read(error: grpc.aio.AioRpcError) -> Refusal:
    """The refusal, after what holds for every status of ours was checked."""
    trailers = dict(error.trailing_metadata() or ())
    raw = trailers[DETAILS_KEY]
    status = status_pb2.Status.FromString(raw)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    details: dict[type[Message], Any] = {}
    for packed in status.details:
        kind = next(k for k in _DETAILS if packed.Is(k.DESCRIPTOR))
        assert kind not in details, "each kind of detail once"
        details[kind] = kind()
        assert packed.Unpack(details[kind])
    info = details[pb.ErrorInfo]
    assert info.domain == DOMAIN
    assert info.reason.replace("_", "").isalnum()
    assert info.reason == info.reason.upper()
    whole = status.message + " ".join(str(detail) for detail in details.values())
    for leak in _LEAKS:
        assert leak not in whole
    code = error.code().name
    if code == "FAILED_PRECONDITION":
        assert details[pb.PreconditionFailure].violations[0].type == info.reason
    if code == "RESOURCE_EXHAUSTED":
        assert details[pb.QuotaFailure].violations[0].subject
        assert details[pb.RetryInfo].retry_delay.ToNanoseconds() > 0
    wire = (code, error.details(), raw)
    return Refusal(code, status.message, details, wire)


async def answer(
    channel: grpc.aio.Channel, method: str, body: bytes | Message = b"", headers: Headers = ()
) -> bytes:
    """The first answer's bytes; raises AioRpcError."""
    raw = body if isinstance(body, bytes) else body.SerializeToString()
    descriptor = DESCRIPTORS.get(method)
    if descriptor is not None and descriptor.server_streaming:
        many: Any = channel.unary_stream(method)
        stream = many(raw, metadata=tuple(headers), timeout=20)
        try:
            async for message in stream:
                return bytes(message)
        finally:
            stream.cancel()
        raise AssertionError("the stream ended without a word")
    one: Any = channel.unary_unary(method)
    return bytes(await one(raw, metadata=tuple(headers), timeout=20))


async def status_of(
    channel: grpc.aio.Channel, method: str, body: bytes | Message = b"", headers: Headers = ()
) -> grpc.aio.AioRpcError:
    """The error the call ends with."""
    try:
        await answer(channel, method, body, headers)
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"{method} was not refused")


async def refusal(
    channel: grpc.aio.Channel, method: str, body: bytes | Message = b"", headers: Headers = ()
) -> Refusal:
    """The refusal the call ends with."""
    return read(await status_of(channel, method, body, headers))


def bearer(token: str) -> Headers:
    """The header of a token."""
    return (("authorization", f"Bearer {token}"),)


def user_claims(**changes: Any) -> dict[str, Any]:
    """The claims of a right user token of team red, changed; None removes one."""
    now = int(time.time())  # noqa: TID251 - the server runs on the machine's clock
    claims = {
        "iss": "contentshop",
        "aud": "contentshop",
        "sub": "tests",
        "scope": "team",
        "team": "red",
        "iat": now,
        "exp": now + 600,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def service_claims(**changes: Any) -> dict[str, Any]:
    """The claims of a right worker token, changed; None removes one."""
    now = int(time.time())  # noqa: TID251 - the server runs on the machine's clock
    return user_claims(
        **{
            "iss": "contentshop-services",
            "aud": "contentshop.enqueue",
            "scope": "worker",
            "team": None,
            "exp": now + 300,
            **changes,
        }
    )


def _part(value: bytes | Mapping[str, Any]) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def forged(
    claims: bytes | Mapping[str, Any],
    *,
    key: bytes | str = USER_SECRET,
    header: bytes | Mapping[str, Any] | None = None,
) -> str:
    """A token put together by hand: any header, any claims, an HS256 signature with the key."""
    if isinstance(header, bytes):
        head = header
    else:
        head = json.dumps({"alg": "HS256", "typ": "JWT", **(header or {})}).encode()
    text = f"{_part(head)}.{_part(claims)}"
    secret = key if isinstance(key, bytes) else key.encode()
    return f"{text}.{_part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def headers_for(method: str, team: str = "red") -> Headers:
    """Headers of a caller who may call the method."""
    scope = RULES[method][0]
    if scope == "team":
        return bearer(forged(user_claims(team=team)))
    if scope == "ops":
        return bearer(forged(user_claims(team=None, scope="ops")))
    return bearer(forged(service_claims(scope=scope), key=SECRET))


def get_job(job_id: int = 1) -> enqueue_pb2.GetJobRequest:
    """A right GetJob request."""
    return enqueue_pb2.GetJobRequest(job_id=job_id)


def claim(job_id: int = 1) -> execution_pb2.ClaimJobRequest:
    """A right ClaimJob request."""
    return execution_pb2.ClaimJobRequest(job_id=job_id, claim_id="c", worker="w")
