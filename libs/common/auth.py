"""Who is calling: JWT bearer tokens, verified before anything is decoded.

Two kinds. A *user* token has audience `contentshop`, a team and scopes (`team`, `ops`); it is
signed with a shared secret (HS256) or by a key of a JWKS. A *service* token is signed by the
calling service for five minutes, with the target service as audience (`contentshop.enqueue`) and
scopes such as `worker`; it names no team, the call does.
"""

from __future__ import annotations

import contextvars
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import jwt

from libs.common.clock import Clock
from libs.common.errors import PermissionDeniedError, UnauthenticatedError

USER_AUDIENCE = "contentshop"
SERVICE_ISSUER = "contentshop-services"
SERVICE_TOKEN_LIFE = timedelta(minutes=5)
MAX_USER_TOKEN_LIFE = timedelta(hours=1)
LEEWAY_SECONDS = 30
LATEST_SECONDS = 253_402_300_800  # the year 10,000; NaN and infinity are past any time
MAX_TOKEN_BYTES = 8 * 1024
MAX_SUBJECT_CHARS = 255  # OpenID's own limit
MAX_VERIFIED = 1024
VERIFIED_SECONDS = 60.0
TEAM_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SERVICE_SCOPES = frozenset({"worker", "packager", "backend"})
REVIEW_SCOPE = "review"  # beside `team`: its holder may see and release what reviews hold back


@dataclass(frozen=True, slots=True)
class Caller:
    """The verified claims of one token.

    Attributes:
        subject: who, for audit and logs.
        team: whose data; empty for service tokens and for ops tokens without a team.
        scopes: what it may do.
    """

    subject: str
    team: str
    scopes: frozenset[str]


_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")


def current_caller() -> Caller:
    """The caller of the RPC being served; set by the server interceptor."""
    return _caller.get()


def set_current_caller(caller: Caller) -> None:
    """For the server interceptor alone."""
    _caller.set(caller)


class Keys(Protocol):
    """Where the keys that verify user tokens come from."""

    algorithms: tuple[str, ...]

    def find(self, key_id: str | None) -> Any | None:
        """The key of that id, or None. `key_id` comes from the caller: a dict key, no more."""
        ...


class SharedSecret:
    """One HS256 secret."""

    algorithms: tuple[str, ...] = ("HS256",)

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def find(self, key_id: str | None) -> Any | None:  # noqa: ARG002 - one key, whatever its name
        """The secret."""
        return self._secret


def _claims(token: str, keys: Keys, *, audience: str, issuer: str, clock: Clock) -> dict[str, Any]:
    header = jwt.get_unverified_header(token)
    key = keys.find(header.get("kid"))
    if key is None:
        raise jwt.InvalidKeyError
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=list(keys.algorithms),
        audience=audience,
        issuer=issuer,
        options={
            "require": ["exp", "iat", "iss", "aud", "sub"],
            # Times are checked below, against the clock we were given.
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
        },
    )
    for name in ("exp", "iat", *(["nbf"] if "nbf" in claims else [])):
        if type(claims[name]) not in (int, float) or not 0 <= claims[name] < LATEST_SECONDS:
            raise jwt.InvalidTokenError
    now = clock.now().timestamp()
    if claims["exp"] + LEEWAY_SECONDS <= now:
        raise jwt.ExpiredSignatureError
    if max(claims["iat"], claims.get("nbf", 0)) - LEEWAY_SECONDS > now:
        raise jwt.ImmatureSignatureError
    return claims


class Authenticator:
    """Turns an authorization header into a Caller, or refuses it."""

    def __init__(
        self,
        *,
        service: str,
        user_keys: Keys,
        user_issuer: str,
        service_secret: str,
        clock: Clock,
    ) -> None:
        self._service_audience = service_audience(service)
        self._user_keys = user_keys
        self._user_issuer = user_issuer
        self._service_keys = SharedSecret(service_secret)
        self._clock = clock
        # Verifying costs more than all else at the door, and callers show a token many times.
        self._verified: dict[str, tuple[Caller, float]] = {}

    def authenticate(self, metadata: Sequence[tuple[str, str | bytes]]) -> Caller:
        """The caller of these request headers.

        Raises:
            UnauthenticatedError: MISSING_TOKEN, TOKEN_EXPIRED, or INVALID_TOKEN for all else.
        """
        headers = [value for key, value in metadata if key == "authorization"]
        if not headers:
            raise UnauthenticatedError("an authorization header is needed", reason="MISSING_TOKEN")
        if len(headers) > 1 or not isinstance(headers[0], str):
            raise _invalid()
        kind, _, token = headers[0].partition(" ")
        if kind.lower() != "bearer" or not token or len(token) > MAX_TOKEN_BYTES:
            raise _invalid()
        now = self._clock.now().timestamp()
        caller, until = self._verified.get(token, (None, 0.0))
        if caller is not None and now < until:
            return caller
        try:
            caller, expires = self._caller_of(token)
        except jwt.ExpiredSignatureError:
            raise UnauthenticatedError("the token has expired", reason="TOKEN_EXPIRED") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            # RecursionError: 8 KiB are enough for JSON nested deeper than Python follows.
            raise _invalid() from None
        if len(self._verified) >= MAX_VERIFIED:
            self._verified.clear()
        # Not for longer than a minute: a key that was taken away soon counts for nothing.
        self._verified[token] = (caller, min(expires, now + VERIFIED_SECONDS))
        return caller

    def _caller_of(self, token: str) -> tuple[Caller, float]:
        """The caller, and when the token expires."""
        # The unverified audience only chooses which rules the token is then held to.
        audience = jwt.decode(token, options={"verify_signature": False}).get("aud")
        if audience == self._service_audience:
            return self._service_caller(token)
        return self._user_caller(token)

    def _service_caller(self, token: str) -> tuple[Caller, float]:
        claims = _claims(
            token,
            self._service_keys,
            audience=self._service_audience,
            issuer=SERVICE_ISSUER,
            clock=self._clock,
        )
        life = SERVICE_TOKEN_LIFE.total_seconds()
        caller = Caller(_subject(claims), "", _scopes(claims, life) & SERVICE_SCOPES)
        return caller, claims["exp"]

    def _user_caller(self, token: str) -> tuple[Caller, float]:
        claims = _claims(
            token,
            self._user_keys,
            audience=USER_AUDIENCE,
            issuer=self._user_issuer,
            clock=self._clock,
        )
        # Service scopes are never taken from a user token, whoever signed it.
        scopes = _scopes(claims, MAX_USER_TOKEN_LIFE.total_seconds()) - SERVICE_SCOPES
        team = claims.get("team", "")
        if not isinstance(team, str) or (team and not TEAM_PATTERN.fullmatch(team)):
            raise _invalid()
        if "team" in scopes and not team:
            raise _invalid()
        return Caller(_subject(claims), team, scopes), claims["exp"]


def _invalid() -> UnauthenticatedError:
    return UnauthenticatedError("the token is not valid here", reason="INVALID_TOKEN")


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims["sub"]
    # It is kept in the audit and in logs: short, and free of what a database or a line refuses.
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
        raise _invalid()
    if not subject.isprintable():
        raise _invalid()
    return subject


def _scopes(claims: Mapping[str, Any], max_life_seconds: float) -> frozenset[str]:
    if claims["exp"] - claims["iat"] > max_life_seconds:
        raise _invalid()
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        raise _invalid()
    return frozenset(scope.split())


def authorize(caller: Caller, wanted: Sequence[str]) -> None:
    """Raises PermissionDeniedError unless the caller has one of the wanted scopes.

    The answer is the same for every method of a class, so it tells nothing of a resource.
    """
    if caller.scopes.intersection(wanted):
        return
    if SERVICE_SCOPES.intersection(wanted):
        raise PermissionDeniedError("only services may call this", reason="SERVICE_ONLY")
    raise PermissionDeniedError(
        f"the token needs the scope {' or '.join(sorted(wanted))}", reason="SCOPE_MISSING"
    )


def service_audience(service: str) -> str:
    """The audience of tokens for a service."""
    return f"{USER_AUDIENCE}.{service}"


def mint_user_token(
    *,
    secret: str,
    issuer: str,
    team: str,
    scopes: Sequence[str],
    clock: Clock,
    life: timedelta = MAX_USER_TOKEN_LIFE,
    subject: str = "developer",
) -> str:
    """A user token signed with the shared secret, for development and tests."""
    now = int(clock.now().timestamp())
    claims = {
        "iss": issuer,
        "aud": USER_AUDIENCE,
        "sub": subject,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + int(life.total_seconds()),
    }
    if team:
        claims["team"] = team
    return jwt.encode(claims, secret, algorithm="HS256")


def service_tokens(
    *, secret: str, subject: str, target: str, scope: str, clock: Clock
) -> Callable[[], str]:
    """A source of service tokens for calls to `target`; a new one well before the old ends."""
    cached = ("", 0.0)

    def token() -> str:
        nonlocal cached
        now = clock.now().timestamp()
        if now < cached[1]:
            return cached[0]
        life = SERVICE_TOKEN_LIFE.total_seconds()
        claims = {
            "iss": SERVICE_ISSUER,
            "aud": service_audience(target),
            "sub": subject,
            "scope": scope,
            "iat": int(now),
            "exp": int(now + life),
        }
        cached = (jwt.encode(claims, secret, algorithm="HS256"), now + life / 2)
        return cached[0]

    return token
