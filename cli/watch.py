"""`contentshop watch JOB`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DataOption, JobArgument, JsonOption, TeamOption
from cli.output import Output


def watch(
    job: JobArgument,
    *,
    after: Annotated[
        int, typer.Option(min=0, metavar="N", help="Only events after this number")
    ] = 0,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Follow a job to its end, also over restarts of the server; --json prints JSON lines."""
    from cli import watching  # noqa: PLC0415 - slow to import

    return watching.watch(job, after=after, data=data, team=team, output=Output(as_json=as_json))
