"""Every RPC by every kind of token, from the rules in the protos."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from libs.common.auth import SERVICE_SCOPES
from tests.attacks.house import (
    METHODS,
    SECRET,
    Headers,
    House,
    Method,
    bearer,
    open_house,
    service_token,
    user_token,
)
from tests.attacks.matrix import reason_of
from tests.integration.enqueue.front_door import forged, service_claims
from tests.support.databases import SERVICES, sqlite_database

GARBAGE = b"\xff" * 20  # is decoded only for who may call
USER_SCOPES = ("team", "ops", "review")
ELSEWHERE = {"enqueue": "assets"}  # another service than this one; enqueue for all others


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("scopes")
    urls = {service: sqlite_database(service, folder) for service in SERVICES}
    async with open_house(urls, folder) as running:
        yield running


def _tokens(server: str) -> dict[str, tuple[Headers, str]]:
    """Kinds of token → headers, and the scope that the caller has by it; empty: none."""
    other = ELSEWHERE.get(server, "enqueue")
    stale = service_claims(aud=f"contentshop.{server}", iat=1_000_000, exp=1_000_300)
    return {
        "none": ((), ""),
        "expired": (bearer(user_token("team", "ops", life_seconds=-300)), ""),
        "expired of a service": (bearer(forged(stale, key=SECRET)), ""),
        "a user's that claims a service's scopes": (bearer(user_token(*SERVICE_SCOPES)), "-"),
        "a service's that claims users' scopes": (
            bearer(service_token(" ".join(USER_SCOPES), server)),
            "-",
        ),
        "a user's of no scope": (bearer(user_token()), "-"),
        **{
            f"{scope} for another service": (bearer(service_token(scope, other)), "")
            for scope in sorted(SERVICE_SCOPES)
        },
        **{f"user {scope}": (bearer(user_token(scope)), scope) for scope in USER_SCOPES},
        **{
            f"service {scope}": (bearer(service_token(scope, server)), scope)
            for scope in sorted(SERVICE_SCOPES)
        },
    }


def _expected(method: Method, kind: str, scope: str) -> tuple[str, str]:
    if kind == "none":
        return "UNAUTHENTICATED", "MISSING_TOKEN"
    if kind.startswith("expired"):
        return "UNAUTHENTICATED", "TOKEN_EXPIRED"
    if not scope:
        return "UNAUTHENTICATED", "INVALID_TOKEN"
    if scope in method.scopes:
        return "INVALID_ARGUMENT", "MALFORMED_MESSAGE"
    service_only = SERVICE_SCOPES.intersection(method.scopes)
    return "PERMISSION_DENIED", "SERVICE_ONLY" if service_only else "SCOPE_MISSING"


@pytest.mark.parametrize("server", ["assets", "enqueue", "packager", "worker"])
async def test_every_method_takes_the_tokens_of_its_rule_alone(house: House, server: str) -> None:
    wrong = []
    methods = [method for method in METHODS if method.server == server]
    for kind, (headers, scope) in _tokens(server).items():
        for method in methods:
            assert method.scopes, f"{method.name} has no rule"
            answer = await house.call(method, GARBAGE, headers)
            got = (answer.code, reason_of(answer))
            if got != _expected(method, kind, scope):
                wrong.append(f"{method.name}, {kind}: {got}")
    assert methods
    assert not wrong, "\n".join(wrong)


def test_every_service_is_asked() -> None:
    assert len(METHODS) > 65
    assert {method.service.name for method in METHODS} == {
        *("AssetsService", "AssetsBackendService", "AssetsOpsService", "EnqueueService"),
        *("ExecutionService", "OpsService", "PackagerService", "WorkerService"),
    }
