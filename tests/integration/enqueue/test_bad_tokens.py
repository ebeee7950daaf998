"""Who is calling: every token that must not pass, and that it is asked before anything else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from libs.common.auth import SERVICE_SCOPES
from libs.common.grpc_client import open_channel
from tests.integration.enqueue.front_door import (
    DESCRIPTORS,
    ENQUEUE,
    EXECUTION,
    RULES,
    Headers,
    bearer,
    claim,
    forged,
    get_job,
    headers_for,
    refusal,
    service_claims,
    user_claims,
)
from tests.integration.enqueue.house import SECRET, open_house
from tests.support.databases import sqlite_database

GET = f"{ENQUEUE}GetJob"
CLAIM = f"{EXECUTION}ClaimJob"
GARBAGE = b"\xff" * 40


@pytest.fixture(scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a house on SQLite."""
    urls = sqlite_database("enqueue", tmp_path_factory.mktemp("tokens"))
    async with open_house(urls) as house:
        channel = open_channel(f"127.0.0.1:{house.app.port}")
        yield channel
        await channel.close()


def _now() -> int:
    return int(user_claims()["iat"])


def _user(**changes: Any) -> str:
    return forged(user_claims(**changes))


def _nested(depth: int) -> bytes:
    return b'{"aud":' + b"[" * depth + b"]" * depth + b"}"


DAY = 86_400


def bad_tokens() -> dict[str, str]:
    """Made when a test asks: a token made at collection has expired when the suite comes to it."""
    now = _now()
    return {
        "no exp": _user(exp=None),
        "exp text": _user(exp="9999999999"),
        "exp true": _user(exp=True),
        "exp in ten years": _user(exp=_now() + 3650 * DAY),
        "exp past an hour": _user(iat=now, exp=now + 3602),
        "exp NaN": forged(json.dumps(user_claims(exp=float("nan"))).encode()),
        "exp infinite": forged(json.dumps(user_claims(exp=float("inf"))).encode()),
        "exp and iat beyond floats": _user(exp=10**400 + 1, iat=10**400),
        "exp of 5,000 digits": forged(b'{"aud":"contentshop","exp":' + b"9" * 5000 + b"}"),
        "no iat": _user(iat=None),
        "iat in an hour": _user(iat=_now() + 3600, exp=_now() + 3700),
        "nbf in an hour": _user(nbf=_now() + 3600),
        "nbf text": _user(nbf="now"),
        "team missing": _user(team=None),
        "team empty": _user(team=""),
        "team a list": _user(team=["red", "blue"]),
        "team with a comma": _user(team="red,blue"),
        "team with a line end": _user(team="red\n"),
        "team with a quote": _user(team="red'--"),
        "team not ASCII": _user(team="röd"),
        "team of 65": _user(team="r" * 65),
        "sub a number": _user(sub=7),
        "sub missing": _user(sub=None),
        "sub empty": _user(sub=""),
        "sub too long": _user(sub="x" * 256),
        "sub with a NUL": _user(sub="a\0b"),
        "scope a list": _user(scope=["team"]),
        "audience another": _user(aud="contentshop.assets"),
        "audience missing": _user(aud=None),
        "audience a list without us": _user(aud=["a", "b"]),
        "audience an object": _user(aud={"contentshop": 1}),
        "issuer another": _user(iss="evil"),
        "issuer missing": _user(iss=None),
        "another secret": forged(user_claims(), key="x" * 32),
        "signed as a service": forged(user_claims(), key=SECRET),
        "alg none": jwt.encode(user_claims(), "", algorithm="none"),
        "alg None in the header": forged(user_claims(), header={"alg": "None"}),
        "alg HS512": jwt.encode(user_claims(), "u" * 64, algorithm="HS512"),
        "alg a number": forged(user_claims(), header={"alg": 5}),
        "alg missing": forged(user_claims(), header=b'{"typ":"JWT"}'),
        "unknown crit": forged(user_claims(), header={"crit": ["urgent"], "urgent": 1}),
        "crit not a list": forged(user_claims(), header={"crit": "b64"}),
        "unencoded payload": forged(user_claims(), header={"crit": ["b64"], "b64": False}),
        "kid a number": forged(user_claims(), header={"kid": 7}),
        "header nested deep": forged(user_claims(), header=_nested(2_500)),
        "claims nested deep": forged(_nested(2_500)),
        "claims a list": forged(b"[]"),
        "claims not JSON": forged(b"team=red"),
        "no dots": "abc",
        "two dots": "..",
        "five parts": "a.b.c.d.e",
        "one of ours with a tail": _user() + ".x",
        "over 8 KiB": _user(padding="x" * 8_000),
    }


@pytest.mark.parametrize("name", list(bad_tokens()))
async def test_a_bad_user_token_is_refused(door: grpc.aio.Channel, name: str) -> None:
    got = await refusal(door, GET, get_job(), bearer(bad_tokens()[name]))
    assert (got.code, got.reason) == ("UNAUTHENTICATED", "INVALID_TOKEN")
    assert got.message == "the token is not valid here"


async def test_a_right_token_passes_and_headers_name_no_team(door: grpc.aio.Channel) -> None:
    headers = (*bearer(_user()), ("x-team-id", "blue"), ("x-forwarded-user", "root"))
    for allowed in (headers, bearer(_user(exp=_now() - 20)), bearer(_user(iat=_now() + 20))):
        got = await refusal(door, GET, get_job(), allowed)
        assert (got.code, got.reason) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


async def test_an_expired_token_says_so(door: grpc.aio.Channel) -> None:
    old = _now() - 600
    for method, token in (
        (GET, _user(iat=old, exp=old + 500)),
        (CLAIM, forged(service_claims(iat=old, exp=old + 300), key=SECRET)),
    ):
        got = await refusal(door, method, GARBAGE, bearer(token))
        assert (got.code, got.reason) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")


@pytest.mark.parametrize("method", DESCRIPTORS)
async def test_no_token_is_the_first_answer(door: grpc.aio.Channel, method: str) -> None:
    for body in (b"", GARBAGE):
        got = await refusal(door, method, body)
        assert (got.code, got.reason) == ("UNAUTHENTICATED", "MISSING_TOKEN")


@pytest.mark.parametrize(
    "headers",
    [
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", ""),),
        (("authorization", _user()),),
        (*bearer(_user()), *bearer(_user())),
        (*bearer(_user()), ("authorization", "Basic x")),
    ],
    ids=["basic", "bare", "empty bearer", "empty", "no kind", "twice", "two kinds"],
)
async def test_a_bad_header_is_refused(door: grpc.aio.Channel, headers: Headers) -> None:
    got = await refusal(door, GET, get_job(), headers)
    assert (got.code, got.reason) == ("UNAUTHENTICATED", "INVALID_TOKEN")


def bad_service_tokens() -> dict[str, str]:
    """Fresh ones, as above."""
    both = ["contentshop.enqueue", "contentshop"]
    now = _now()
    return {
        "assets": forged(service_claims(aud="contentshop.assets"), key=SECRET),
        "users": forged(service_claims(aud="contentshop"), key=SECRET),
        "both": forged(service_claims(aud=both), key=SECRET),
        "issuer": forged(service_claims(iss="contentshop"), key=SECRET),
        "too long": forged(service_claims(iat=now, exp=now + 302), key=SECRET),
        "user secret": forged(service_claims()),
        "empty secret": forged(service_claims(), key=b""),
    }


@pytest.mark.parametrize("name", list(bad_service_tokens()))
async def test_a_bad_service_token_is_refused(door: grpc.aio.Channel, name: str) -> None:
    got = await refusal(door, CLAIM, claim(), bearer(bad_service_tokens()[name]))
    assert (got.code, got.reason) == ("UNAUTHENTICATED", "INVALID_TOKEN")


@pytest.mark.parametrize("method", DESCRIPTORS)
async def test_the_class_of_token_is_asked_before_decoding(
    door: grpc.aio.Channel, method: str
) -> None:
    wanted = set(RULES[method])
    assert wanted, "every method has a rule"
    for scope in ("team", "ops", "worker packager backend", ""):
        # Service scopes in a user token count for nothing.
        if scope in wanted:
            continue
        got = await refusal(door, method, GARBAGE, bearer(_user(scope=scope)))
        reason = "SERVICE_ONLY" if wanted & SERVICE_SCOPES else "SCOPE_MISSING"
        assert (got.code, got.reason) == ("PERMISSION_DENIED", reason)
    for scope in {"team", "ops", "worker", "packager", "backend", ""} - wanted:
        # No more does a team in a service token.
        token = forged(service_claims(scope=scope, team="red"), key=SECRET)
        got = await refusal(door, method, GARBAGE, bearer(token))
        assert got.code == "PERMISSION_DENIED"
    got = await refusal(door, method, GARBAGE, headers_for(method))
    assert got.reason == "MALFORMED_MESSAGE", "who may call is decoded"


# Keys of a JWKS.


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _entry(key: Any, kid: str, algorithm: str, **more: str) -> dict[str, Any]:
    known = jwt.get_algorithm_by_name(algorithm)
    return {**known.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": algorithm, **more}


async def test_keys_of_a_jwks(tmp_path: Path) -> None:
    rsa_key, ec_key = _rsa(), ec.generate_private_key(ec.SECP256R1())
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    jwks = tmp_path / "jwks.json"
    secret = {"kty": "oct", "k": "dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXV1dXU", "kid": "oct"}
    entries = [
        {"kty": "strange", "kid": "strange"},
        secret,
        _entry(rsa_key, "r1", "RS256", use="sig"),
        _entry(ec_key, "e1", "ES256"),
        _entry(rsa_key, "enc", "RS256", use="enc"),
    ]
    jwks.write_text(json.dumps({"keys": entries}))
    urls = sqlite_database("enqueue", tmp_path)

    def token(key: Any, algorithm: str, kid: str | None = "r1", **header: Any) -> str:
        named = {"kid": kid} if kid is not None else {}
        return jwt.encode(user_claims(), key, algorithm=algorithm, headers={**named, **header})

    async with open_house(urls, AUTH_SECRET="", AUTH_JWKS=str(jwks)) as house:
        channel = open_channel(f"127.0.0.1:{house.app.port}")
        for good in (token(rsa_key, "RS256"), token(ec_key, "ES256", "e1")):
            assert (await refusal(channel, GET, get_job(), bearer(good))).code == "NOT_FOUND"
        stranger = _rsa()
        own_key = _entry(stranger, "r1", "RS256")
        for name, bad in {
            "HS256 with the public key": forged(user_claims(), key=public, header={"kid": "r1"}),
            "HS256 with the secret of the JWKS": forged(user_claims(), header={"kid": "oct"}),
            "another algorithm of the same key": token(rsa_key, "PS256"),
            "another key's id": token(rsa_key, "RS256", "e1"),
            "a key for encryption": token(rsa_key, "RS256", "enc"),
            "unknown kid": token(rsa_key, "RS256", "r2"),
            "no kid": token(rsa_key, "RS256", None),
            "kid a path": token(stranger, "RS256", "../../dev/null"),
            "kid SQL": token(stranger, "RS256", "r1' OR 1=1 --"),
            "kid of 5,000": token(stranger, "RS256", "r" * 5_000),
            "own jwk": token(stranger, "RS256", jwk=own_key),
            "own jku": token(stranger, "RS256", jku="http://127.0.0.1:1/jwks.json"),
            "own x5u": token(stranger, "RS256", x5u="http://127.0.0.1:1/x.pem", x5c=["AAAA"]),
            "alg none": forged(user_claims(), header={"alg": "none", "kid": "r1"}),
        }.items():
            got = await refusal(channel, GET, get_job(), bearer(bad))
            assert (got.code, got.reason) == ("UNAUTHENTICATED", "INVALID_TOKEN"), name
        await channel.close()


async def test_keys_that_cannot_be_read_are_nobodys_fault_but_ours(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.json")
    urls = sqlite_database("enqueue", tmp_path)
    async with open_house(urls, AUTH_SECRET="", AUTH_JWKS=missing) as house:
        channel = open_channel(f"127.0.0.1:{house.app.port}")
        got = await refusal(channel, GET, get_job(), bearer(_user()))
        assert (got.code, got.reason) == ("UNAVAILABLE", "KEYS_UNAVAILABLE")
        assert "missing.json" not in got.message
        # Services are not locked out by it.
        got = await refusal(channel, CLAIM, claim(), headers_for(CLAIM))
        assert got.code == "NOT_FOUND"
        await channel.close()


async def test_a_token_is_refused_in_the_same_words_whatever_is_wrong(
    door: grpc.aio.Channel,
) -> None:
    answers = [
        await refusal(door, GET, get_job(), bearer(bad_tokens()[name]))
        for name in ("another secret", "issuer another", "team a list", "alg none", "no dots")
    ]
    assert len({replace(a, details={}).wire for a in answers}) == 1
