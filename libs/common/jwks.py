"""User tokens verified by the public keys of a JWKS, from a file or an https URL."""

from __future__ import annotations

import json
import threading
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import jwt
import structlog

from libs.common.clock import Clock
from libs.common.errors import UnavailableError

log = structlog.get_logger()

REFRESH_SECONDS = 600.0
RETRY_SECONDS = 30.0
TIMEOUT_SECONDS = 3.0
MAX_BYTES = 1024 * 1024


class JwksKeys:
    """Keys by id. Read when made; again every ten minutes, in the background.

    A key id from a token is only ever a dict key here: it never decides what is fetched, so a
    token cannot make the service fetch anything, and an unknown id costs nothing. So a new key
    must be published ten minutes before it signs.
    """

    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA", "PS256")

    def __init__(self, source: str, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._next_read = float("-inf")
        self._read()

    def find(self, key_id: str | None) -> Any | None:
        """The public key of that id, with the one algorithm it is for, or None.

        Raises:
            UnavailableError: KEYS_UNAVAILABLE, no key could be read yet: nobody is to blame their
                token for that.
        """
        now = self._clock.monotonic()
        if now >= self._next_read:
            # Old keys serve while new ones are read: authentication never waits for a fetch.
            self._next_read = now + RETRY_SECONDS
            threading.Thread(target=self._read, daemon=True, name="jwks").start()
        if not self._keys:
            raise UnavailableError("no token can be verified now", reason="KEYS_UNAVAILABLE")
        return self._keys.get(key_id) if isinstance(key_id, str) else None

    def _read(self) -> None:
        self._next_read = self._clock.monotonic() + RETRY_SECONDS
        try:
            entries = json.loads(self._fetch())["keys"]
            keys = [key for entry in entries if (key := self._usable(entry)) is not None]
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            log.warning("jwks.unreadable", error=type(error).__name__)
            return
        if not keys:  # a slip of who gives it: the keys we have go on serving
            log.warning("jwks.unreadable", error="NoUsableKey")
            return
        self._keys = {str(key.key_id): key for key in keys}
        self._next_read = self._clock.monotonic() + REFRESH_SECONDS
        log.info("jwks.read", keys=len(keys), entries=len(entries))

    def _usable(self, entry: dict[str, Any]) -> jwt.PyJWK | None:
        """The key, if it has a name and is for verifying; the others are none of our business."""
        try:
            key = jwt.PyJWK(entry)
        except (AttributeError, ValueError, TypeError, jwt.PyJWTError):
            return None
        fits = key.algorithm_name in self.algorithms and key.public_key_use in (None, "sig")
        return key if key.key_id and fits else None

    def _fetch(self) -> bytes:
        if not self._source.startswith("https://"):
            return Path(self._source).read_bytes()
        with urllib.request.urlopen(self._source, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - https, checked above
            return bytes(answer.read(MAX_BYTES))
