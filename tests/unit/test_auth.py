"""Tokens: made, verified, kept for a while, and the keys that verify them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from libs.common import auth
from libs.common.auth import Authenticator, Caller, SharedSecret, mint_user_token, service_tokens
from libs.common.errors import PermissionDeniedError, UnauthenticatedError, UnavailableError
from libs.common.jwks import REFRESH_SECONDS, RETRY_SECONDS, JwksKeys
from tests.fakes.clock import ManualClock
from tests.support.eventually import eventually

USERS, SERVICES = "u" * 32, "s" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def authenticator(clock: ManualClock) -> Authenticator:
    return verifier(clock, SharedSecret(USERS))


def verifier(clock: ManualClock, keys: auth.Keys) -> Authenticator:
    return Authenticator(
        service="enqueue",
        user_keys=keys,
        user_issuer="us",
        service_secret=SERVICES,
        clock=clock,
    )


def headers(token: str) -> list[tuple[str, str | bytes]]:
    return [("authorization", f"Bearer {token}")]


def minted(clock: ManualClock, **changes: Any) -> str:
    what: dict[str, Any] = {"team": "red", "scopes": ["team"], **changes}
    return mint_user_token(secret=USERS, issuer="us", clock=clock, **what)


def refusal(authenticator: Authenticator, token: str) -> str:
    with pytest.raises(UnauthenticatedError) as raised:
        authenticator.authenticate(headers(token))
    return raised.value.reason


def test_a_minted_user_token_names_its_caller(
    authenticator: Authenticator, clock: ManualClock
) -> None:
    token = minted(clock, scopes=["team", "ops", "worker"], subject="ann")
    expected = Caller("ann", "red", frozenset({"team", "ops"}))  # no service scope for users
    assert authenticator.authenticate(headers(token)) == expected


def test_an_ops_token_needs_no_team(authenticator: Authenticator, clock: ManualClock) -> None:
    caller = authenticator.authenticate(headers(minted(clock, team="", scopes=["ops"])))
    assert (caller.team, caller.scopes) == ("", frozenset({"ops"}))


def test_a_token_ends_with_its_life_and_the_leeway(
    authenticator: Authenticator, clock: ManualClock
) -> None:
    token = minted(clock, life=timedelta(minutes=10))
    clock.move(600 + auth.LEEWAY_SECONDS - 1)
    authenticator.authenticate(headers(token))
    clock.move(1)
    assert refusal(authenticator, token) == "TOKEN_EXPIRED"


def test_a_token_that_is_known_still_ends_in_time(
    authenticator: Authenticator, clock: ManualClock
) -> None:
    token = minted(clock, life=timedelta(seconds=10))
    authenticator.authenticate(headers(token))
    clock.move(10 + auth.LEEWAY_SECONDS)
    assert refusal(authenticator, token) == "TOKEN_EXPIRED"


def test_a_token_from_a_clock_ahead_is_refused(
    authenticator: Authenticator, clock: ManualClock
) -> None:
    ahead = ManualClock()
    ahead.move(auth.LEEWAY_SECONDS + 1)
    assert refusal(authenticator, minted(ahead)) == "INVALID_TOKEN"
    assert clock.now() < ahead.now()


def test_a_token_lives_an_hour_at_most(authenticator: Authenticator, clock: ManualClock) -> None:
    assert refusal(authenticator, minted(clock, life=timedelta(seconds=3601))) == "INVALID_TOKEN"


def test_no_more_tokens_are_kept_than_may_be(
    authenticator: Authenticator, clock: ManualClock
) -> None:
    for number in range(auth.MAX_VERIFIED + 5):
        authenticator.authenticate(headers(minted(clock, subject=f"s{number}")))
    assert len(authenticator._verified) <= auth.MAX_VERIFIED
    for number in range(50):
        refusal(authenticator, f"a.b.{number}")
    assert len(authenticator._verified) == 5  # what is refused is not kept


def test_service_tokens_are_made_anew_in_time(
    authenticator: Authenticator, clock: ManualClock
) -> None:
    source = service_tokens(
        secret=SERVICES, subject="worker", target="enqueue", scope="worker", clock=clock
    )
    first = source()
    assert source() == first
    caller = authenticator.authenticate(headers(first))
    assert caller == Caller("worker", "", frozenset({"worker"}))
    clock.move(149)
    assert source() == first
    clock.move(1)  # half of its life
    second = source()
    assert second != first
    clock.move(150 + auth.LEEWAY_SECONDS)
    assert refusal(authenticator, first) == "TOKEN_EXPIRED"
    authenticator.authenticate(headers(second))


@pytest.mark.parametrize(
    ("scopes", "wanted", "reason"),
    [
        ({"team"}, ("team",), None),
        ({"ops", "team"}, ("ops",), None),
        (set(), ("team",), "SCOPE_MISSING"),
        ({"team"}, ("worker",), "SERVICE_ONLY"),
        ({"worker"}, ("packager",), "SERVICE_ONLY"),
        ({"team"}, (), "SCOPE_MISSING"),  # a method without a rule
    ],
)
def test_scopes_open_methods(scopes: set[str], wanted: tuple[str, ...], reason: str | None) -> None:
    caller = Caller("s", "red", frozenset(scopes))
    if reason is None:
        auth.authorize(caller, wanted)
        return
    with pytest.raises(PermissionDeniedError) as raised:
        auth.authorize(caller, wanted)
    assert raised.value.reason == reason


# Keys from a JWKS.


class Published:
    """A JWKS file, with a key per id."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jwks.json"
        self.keys: dict[str, Any] = {}

    def publish(self, *names: str) -> None:
        entries = []
        for name in names:
            key = self.keys.setdefault(name, ec.generate_private_key(ec.SECP256R1()))
            public = jwt.get_algorithm_by_name("ES256").to_jwk(key.public_key(), as_dict=True)
            entries.append({**public, "kid": name, "alg": "ES256"})
        self.path.write_text(json.dumps({"keys": entries}))

    def token(self, clock: ManualClock, name: str) -> str:
        plain = jwt.decode(minted(clock), options={"verify_signature": False})
        return jwt.encode(plain, self.keys[name], algorithm="ES256", headers={"kid": name})


async def test_keys_rotate_without_a_gap(clock: ManualClock, tmp_path: Path) -> None:
    published = Published(tmp_path)
    published.publish("old")
    keys = JwksKeys(str(published.path), clock)
    authenticator = verifier(clock, keys)
    authenticator.authenticate(headers(published.token(clock, "old")))
    published.publish("old", "new")
    assert refusal(authenticator, published.token(clock, "new")) == "INVALID_TOKEN"
    clock.move(REFRESH_SECONDS)
    assert keys.find("old") is not None  # does not wait for the reading that it begins
    await eventually(lambda: keys.find("new") is not None)
    authenticator.authenticate(headers(published.token(clock, "new")))
    for bad in ("{", '{"keys": []}', '{"keys": ["no key"]}'):  # take no key away
        published.path.write_text(bad)
        clock.move(REFRESH_SECONDS)
        assert keys.find("old") is not None
        keys._read()
        assert keys.find("old") is not None
    published.publish("new")

    def old_is_gone() -> bool:
        clock.move(RETRY_SECONDS)
        return keys.find("old") is None

    await eventually(old_is_gone)
    assert refusal(authenticator, published.token(clock, "old")) == "INVALID_TOKEN"


async def test_keys_that_come_late_are_found(clock: ManualClock, tmp_path: Path) -> None:
    published = Published(tmp_path)
    keys = JwksKeys(str(published.path), clock)
    with pytest.raises(UnavailableError):
        keys.find("a")
    published.publish("a")
    clock.move(RETRY_SECONDS)

    def found() -> bool:
        try:
            return keys.find("a") is not None
        except UnavailableError:
            return False

    await eventually(found)
