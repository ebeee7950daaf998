"""`contentshop download JOB`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DataOption, JobArgument, JsonOption, OutOption, TeamOption
from cli.output import Output


def download(
    job: JobArgument,
    *,
    out: OutOption = None,
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="Take what is there, do not wait for the job's end"),
    ] = False,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Save a job's images and its zip; waits for a job that still runs."""
    from cli import downloading  # noqa: PLC0415 - slow to import

    return downloading.download(
        job, wait=not no_wait, out=out, data=data, team=team, output=Output(as_json=as_json)
    )
