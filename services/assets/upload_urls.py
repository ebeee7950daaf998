"""Upload URLs: the one form of URL a request may name an image by. Nothing is ever fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_URL_CHARS = 2048
MAX_FILE_ID = 2**63 - 1

# An id of at most 19 digits, without sign or leading zero. A query may hold what RFC 3986 lets it.
_UPLOAD_PATH = re.compile(
    r"/api/uploads/(?P<id>[1-9][0-9]{0,18})/file(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*)?"
)
_ORIGIN = re.compile(r"https?://(?P<host>[a-z0-9.-]+(?::[1-9][0-9]{0,4})?)(?=/)", re.IGNORECASE)


class UploadUrls:
    """Reads file ids out of upload URLs.

    Args:
        hosts: `host` or `host:port` that absolute URLs may name, as they stand in the URL.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)

    def file_id(self, url: str) -> int | None:
        """The id in `/api/uploads/{id}/file`, relative or absolute; None for anything else."""
        if len(url) > MAX_URL_CHARS:
            return None
        path = url
        if not url.startswith("/"):
            origin = _ORIGIN.match(url)
            if origin is None or origin["host"].lower() not in self._hosts:
                return None
            path = url[origin.end() :]
        found = _UPLOAD_PATH.fullmatch(path)
        if found is None or int(found["id"]) > MAX_FILE_ID:
            return None
        return int(found["id"])
