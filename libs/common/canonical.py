"""From a request with a request_id to its key: a hash of the rest of it, in canonical form."""

from __future__ import annotations

import hashlib
from typing import Any

from google.protobuf.message import Message

from libs.common.checks import checking
from libs.common.request_keys import RequestKey


def request_key(team: str, method: str, request: Any) -> RequestKey:
    """The caller's key; InvalidArgumentError for a request_id that is none.

    The order of fields and fields we do not know do not count: a client of another version that
    asks for the same gets the same.
    """
    with checking() as check:
        check.request_id(request.request_id)
    body: Message = type(request)()
    body.CopyFrom(request)
    body.ClearField("request_id")
    body.DiscardUnknownFields()
    digest = hashlib.sha256(body.SerializeToString(deterministic=True)).hexdigest()
    return RequestKey(team, method, request.request_id, digest)
