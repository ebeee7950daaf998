"""Structured logs: constant event names, data in keywords, one JSON line each on stderr."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

MAX_VALUE_CHARS = 256


def configure(service: str, *, level: str = "info", json: bool = True) -> None:
    """Sets up structlog for this process; called once by a composition root."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _truncate,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=_Stderr()),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)
    # Libraries log in their own words, with reprs of URLs in them; warnings are enough.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s %(message)s")
    for noisy in ("aiormq", "aio_pika", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def frames(error: BaseException) -> str:
    """Where it happened, without the error's own text, which may quote the caller or a row."""
    return "".join(traceback.format_tb(error.__traceback__))


class _Stderr:
    """stderr as it is now (tests swap it), whose failures never fail the work."""

    def write(self, text: str) -> int:
        try:
            return sys.stderr.write(text)
        except (OSError, ValueError):  # a full disk or a closed pipe
            return 0

    def flush(self) -> None:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            return


def _truncate(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """No field is longer than MAX_VALUE_CHARS, tracebacks apart: callers choose some values."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_VALUE_CHARS and key != "exception":
            event[key] = value[:MAX_VALUE_CHARS] + "…"
    return event
