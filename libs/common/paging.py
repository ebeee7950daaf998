"""Page tokens (AIP-158) that no client can make or carry to another list."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from libs.common.checks import checking
from libs.common.clock import Clock
from libs.common.errors import FieldViolation, InvalidArgumentError

LIFE_SECONDS = 24 * 3600

_INT_BYTES = 8
_MAC_BYTES = 16


class PageTokens:
    """Signs where a page ended, bound to team, method and filter; good for a day.

    Args:
        secret: shared by all replicas of a service.
        clock: says when a token has run out.
    """

    def __init__(self, secret: str, clock: Clock) -> None:
        self._key = hashlib.sha256(b"page-tokens:" + secret.encode()).digest()
        self._clock = clock

    def seal(self, position: int, *scope: object) -> str:
        """A token for "after this position" of the list that `scope` describes."""
        return self._seal(position.to_bytes(_INT_BYTES, "big"), scope)

    def open(self, token: str, *scope: object) -> int | None:
        """The position, or None for the first page; raises BAD_PAGE_TOKEN for all else."""
        position = self._open(token, scope)
        return None if position is None else int.from_bytes(position, "big")

    def seal_text(self, position: str, *scope: object) -> str:
        """A token for "after this name", for a list that is sorted by names."""
        return self._seal(position.encode(), scope)

    def open_text(self, token: str, *scope: object) -> str | None:
        """The name, or None for the first page; raises BAD_PAGE_TOKEN for all else."""
        position = self._open(token, scope)
        return None if position is None else position.decode()

    def _seal(self, position: bytes, scope: tuple[object, ...]) -> str:
        body = (self._now() + LIFE_SECONDS).to_bytes(_INT_BYTES, "big") + position
        return _text(body + self._mac(body, scope))

    def _open(self, token: str, scope: tuple[object, ...]) -> bytes | None:
        if not token:
            return None
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raise _bad() from None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body, scope)):
            raise _bad()
        # Decoding is lenient (stray characters, spare bits): only what we sealed is ours.
        if token != _text(raw) or int.from_bytes(body[:_INT_BYTES], "big") < self._now():
            raise _bad()
        return body[_INT_BYTES:]

    def _now(self) -> int:
        return int(self._clock.now().timestamp())

    def _mac(self, body: bytes, scope: tuple[object, ...]) -> bytes:
        # The list's end shows itself, so what follows it cannot be taken for a part of it.
        text = json.dumps(scope, default=str).encode()
        return hmac.new(self._key, text + body, hashlib.sha256).digest()[:_MAC_BYTES]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bad() -> InvalidArgumentError:
    return InvalidArgumentError(
        "the page token is not of this list, or too old",
        reason="BAD_PAGE_TOKEN",
        violations=[
            FieldViolation("page_token", "is not of this list, or too old", "BAD_PAGE_TOKEN")
        ],
    )


def page_size(asked: int, *, default: int, most: int) -> int:
    """The page size to use; raises InvalidArgumentError outside 0..most (0 means default)."""
    with checking() as check:
        check.within(asked, 0, most, "page_size")
    return asked or default
