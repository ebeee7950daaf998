"""Times in requests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf import timestamp_pb2

from libs.common.checks import Violations


def time_of(request: Any, field: str, check: Violations) -> datetime | None:
    """A request's time; None where it is not set, or is none, which is added to the violations."""
    if not request.HasField(field):
        return None
    stamp: timestamp_pb2.Timestamp = getattr(request, field)
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        check.add(field, "is not a time from year 1 to 9999")
        return None


def window_of(
    request: Any, start: str, end: str, check: Violations
) -> tuple[datetime | None, datetime | None]:
    """A request's window, its end after its start; None for an end that is open."""
    first, last = time_of(request, start, check), time_of(request, end, check)
    if first is not None and last is not None:
        check.check(first < last, end, f"must be after {start}")
    return first, last
