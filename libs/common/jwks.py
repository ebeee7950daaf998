"""User tokens verified by the public keys of a JWKS, from a file or an https URL."""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path
from typing import Any

import jwt
import structlog

from libs.common.clock import Clock

log = structlog.get_logger()

REFRESH_SECONDS = 600.0
RETRY_SECONDS = 30.0
TIMEOUT_SECONDS = 3.0
MAX_BYTES = 1024 * 1024


class JwksKeys:
    """Keys by id. Read at first use; again every ten minutes, in the background.

    A key id from a token is only ever a dict key here: it never decides what is fetched, so a
    token cannot make the service fetch anything, and an unknown id costs nothing.
    """

    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA", "PS256")

    def __init__(self, source: str, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._next_read = float("-inf")
        self._reading = threading.Lock()

    def find(self, key_id: str | None) -> Any | None:
        """The public key of that id, or None."""
        if self._clock.monotonic() >= self._next_read:
            if self._keys:
                # Old keys serve while new ones are read: authentication never waits for a fetch.
                threading.Thread(target=self._read, daemon=True, name="jwks").start()
            else:
                self._read()
        return self._keys.get(key_id) if isinstance(key_id, str) else None

    def _read(self) -> None:
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._next_read = self._clock.monotonic() + RETRY_SECONDS
            keys = {}
            for entry in json.loads(self._fetch())["keys"]:
                key = jwt.PyJWK(entry)
                if key.key_id and key.algorithm_name in self.algorithms:
                    keys[key.key_id] = key.key
            self._keys = keys
            self._next_read = self._clock.monotonic() + REFRESH_SECONDS
            log.info("jwks.read", keys=len(keys))
        except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            log.warning("jwks.unreadable", error=type(error).__name__)
        finally:
            self._reading.release()

    def _fetch(self) -> bytes:
        if not self._source.startswith("https://"):
            return Path(self._source).read_bytes()
        with urllib.request.urlopen(self._source, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - https, checked above
            return bytes(answer.read(MAX_BYTES))
