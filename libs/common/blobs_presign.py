"""Presigned PUTs that are good for one length only.

The SDK signs the host alone, and such a URL takes anything up to 5 GiB. Here Content-Length is
signed too (AWS Signature Version 4, query parameters), so that the store itself refuses more, or
less, than was announced.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote

from minio.helpers import BaseURL

_ALGORITHM = "AWS4-HMAC-SHA256"
_SIGNED_HEADERS = "content-length;host"


class PutSigner:
    """Signs PUTs into one bucket; connects to nothing.

    Args:
        endpoint: `http://host:port` or `https://host`, as those who put reach it.
        bucket: its name.
        region: of the bucket.
        access_key: of an account that may write there.
        secret_key: of the same account.
    """

    def __init__(
        self, endpoint: str, bucket: str, region: str, access_key: str, secret_key: str
    ) -> None:
        self._base = BaseURL(endpoint, region)
        self._bucket = bucket
        self._region = region
        self._access_key = access_key
        self._secret_key = secret_key

    def url(self, key: str, size_bytes: int, *, at: datetime, life_seconds: int) -> str:
        """A URL that takes a PUT of exactly size_bytes under key, for life_seconds from `at`."""
        url = self._base.build(
            method="PUT", region=self._region, bucket_name=self._bucket, object_name=key
        )
        now = at.astimezone(UTC)
        scope = f"{now:%Y%m%d}/{self._region}/s3/aws4_request"
        named = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self._access_key}/{scope}",
            "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}",
            "X-Amz-Expires": str(life_seconds),
            "X-Amz-SignedHeaders": _SIGNED_HEADERS,
        }
        # The names are in order, as the signature wants them.
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in named.items())
        headers = f"content-length:{size_bytes}\nhost:{url.netloc}\n"
        request = f"PUT\n{url.path}\n{query}\n{headers}\n{_SIGNED_HEADERS}\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = self._sign(f"{_ALGORITHM}\n{named['X-Amz-Date']}\n{scope}\n{digest}", scope)
        return url._replace(query=f"{query}&X-Amz-Signature={signature}").geturl()

    def _sign(self, text: str, scope: str) -> str:
        key = f"AWS4{self._secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()
