"""`contentshop upload FILE…`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataOption, JsonOption, TeamOption
from cli.output import Output


def upload(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Photos: PNG, JPEG or WebP, at most 10 MiB", show_default=False
        ),
    ],
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Upload photos; prints the ids to use in their place."""
    from cli import uploading  # noqa: PLC0415 - slow to import

    return uploading.upload_all(files, data=data, team=team, output=Output(as_json=as_json))
