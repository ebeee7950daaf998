"""The options and arguments that several commands share, and how their values are read."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

import typer

MAX_ID = 2**63 - 1
_LIFE = re.compile(r"([0-9]{1,12})([smh]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_MAX_SECONDS = 100 * 365 * 24 * 3600  # what is counted back from now stays a time


def parse_id(text: str) -> int:
    """An id: a whole number from 1 up."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_ID:
        return int(text)
    raise typer.BadParameter(f"{text!r} is not an id; ids are whole numbers from 1 up")


def parse_seconds(text: str) -> int:
    """A length of time, as in `90`, `90s`, `15m` or `1h`."""
    found = _LIFE.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a length of time such as 90s, 15m or 1h")
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > _MAX_SECONDS:
        raise typer.BadParameter(f"{text!r} is longer than 100 years")
    return seconds


class QualityWord(enum.StrEnum):
    """How much care."""

    FAST = "fast"
    HIGH = "high"


class FormatWord(enum.StrEnum):
    """The wished file format."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class StateWord(enum.StrEnum):
    """States of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Data folder of the running house (./data, or CONTENTSHOP_DATA)",
        show_default=False,
        rich_help_panel="Connection",
    ),
]
TeamOption = Annotated[
    str | None,
    typer.Option(
        "--team",
        metavar="TEAM",
        help="Team to act for (demo, or CONTENTSHOP_TEAM)",
        show_default=False,
        rich_help_panel="Connection",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout and nothing else", show_default=False)
]
JobArgument = Annotated[
    int, typer.Argument(parser=parse_id, metavar="JOB", help="The job's id", show_default=False)
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Folder for images and zip (out/job-ID)",
        show_default=False,
    ),
]
VariationsOption = Annotated[
    int, typer.Option("--variations", "-n", min=1, max=10, help="How many images")
]
AspectRatioOption = Annotated[
    str,
    typer.Option(
        "--aspect-ratio", metavar="W:H", help="Such as 1:1, 4:5, 16:9", show_default=False
    ),
]
QualityOption = Annotated[QualityWord, typer.Option("--quality", help="How much care")]
FormatOption = Annotated[FormatWord, typer.Option("--format", help="The wished file format")]
WorkflowOption = Annotated[
    str,
    typer.Option("--workflow", metavar="KEY", help="Another workflow", show_default=False),
]
RequestIdOption = Annotated[
    str,
    typer.Option(
        "--request-id",
        metavar="KEY",
        help="Asked again with the same key, nothing happens twice",
        show_default=False,
    ),
]
NoWaitOption = Annotated[
    bool,
    typer.Option("--no-wait", help="Only enqueue; do not wait for the images", show_default=False),
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many")]
