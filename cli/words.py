"""Numbers, times and states as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf import timestamp_pb2

_KILO = 1000.0
_MILLISECONDS_BELOW = 0.1  # seconds
_MINUTE = 60
_HOUR = 3600
_DAY = 86_400

STATE_STYLES = {
    "QUEUED": "yellow",
    "PENDING": "yellow",
    "ACTIVE": "cyan",
    "RUNNING": "cyan",
    "SUCCEEDED": "green",
    "DONE": "green",
    "READY": "green",
    "FAILED": "red",
    "CANCELED": "magenta",
}


def size(count: int) -> str:
    """Bytes: `812 B`, `55.3 kB`, `1.2 MB`."""
    if count < _KILO:
        return f"{count} B"
    value, unit = float(count), "B"
    units = ["GB", "MB", "kB"]
    while value >= _KILO and units:
        value /= _KILO
        unit = units.pop()
    return f"{value:.1f} {unit}"


def seconds(value: float) -> str:
    """A length of time: `40 ms`, `1.8 s`, `1 min 05 s`, `2 h 03 min`."""
    if value < _MILLISECONDS_BELOW:
        return f"{max(round(value * 1000), 0)} ms"
    if value < _MINUTE:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"


def ago(then: timestamp_pb2.Timestamp, now: datetime) -> str:
    """How long ago: `just now`, `5 min ago`, `3 h ago`, `2 d ago`."""
    passed = int((now - moment(then)).total_seconds())
    if passed < _MINUTE:
        return "just now"
    if passed < _HOUR:
        return f"{passed // _MINUTE} min ago"
    if passed < _DAY:
        return f"{passed // _HOUR} h ago"
    return f"{passed // _DAY} d ago"


def images(done: int, count: int) -> str:
    """`3 of 4 images`, `1 image`."""
    if done == count:
        return f"{count} image{'' if count == 1 else 's'}"
    return f"{done} of {count} image{'' if count == 1 else 's'}"


def when(stamp: timestamp_pb2.Timestamp) -> str:
    """`2026-11-21 05:04:49 UTC`."""
    return f"{moment(stamp):%Y-%m-%d %H:%M:%S} UTC"


def moment(stamp: timestamp_pb2.Timestamp) -> datetime:
    """An aware datetime in UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def style_of(state: str) -> str:
    """The colour of a state."""
    return STATE_STYLES.get(state, "")
