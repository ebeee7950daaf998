"""Page tokens (AIP-158) that no client can make or carry to another list."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from libs.common.checks import checking
from libs.common.errors import FieldViolation, InvalidArgumentError

_MAC_BYTES = 16


class PageTokens:
    """Signs where a page ended, bound to team, method and filter.

    Args:
        secret: shared by all replicas of a service.
    """

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"page-tokens:" + secret.encode()).digest()

    def seal(self, position: int, *scope: object) -> str:
        """A token for "after this position" of the list that `scope` describes."""
        body = position.to_bytes(8, "big")
        return base64.urlsafe_b64encode(body + self._mac(body, scope)).decode().rstrip("=")

    def open(self, token: str, *scope: object) -> int | None:
        """The position, or None for the first page; raises BAD_PAGE_TOKEN for all else."""
        if not token:
            return None
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raise _bad() from None
        body, mac = raw[:8], raw[8:]
        if len(raw) != 8 + _MAC_BYTES or not hmac.compare_digest(mac, self._mac(body, scope)):
            raise _bad()
        position = int.from_bytes(body, "big")
        # Decoding is lenient (stray characters, spare bits): only what we sealed is ours.
        if token != self.seal(position, *scope):
            raise _bad()
        return position

    def _mac(self, body: bytes, scope: tuple[object, ...]) -> bytes:
        text = json.dumps(scope, default=str).encode()
        return hmac.new(self._key, body + text, hashlib.sha256).digest()[:_MAC_BYTES]


def _bad() -> InvalidArgumentError:
    return InvalidArgumentError(
        "the page token is not of this list",
        reason="BAD_PAGE_TOKEN",
        violations=[FieldViolation("page_token", "is not of this list", "BAD_PAGE_TOKEN")],
    )


def page_size(asked: int, *, default: int, most: int) -> int:
    """The page size to use; raises InvalidArgumentError outside 0..most (0 means default)."""
    with checking() as check:
        check.within(asked, 0, most, "page_size")
    return asked or default
