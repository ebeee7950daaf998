"""`contentshop jobs`, `contentshop job JOB`, `contentshop cancel JOB`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DataOption, JobArgument, JsonOption, StateWord, TeamOption
from cli.output import Output


def jobs(
    *,
    state: Annotated[
        list[StateWord] | None,
        typer.Option(help="Only jobs in this state; repeatable", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many")] = 20,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """List the team's jobs, newest first."""
    from cli import listing  # noqa: PLC0415 - slow to import

    words = [word.value for word in state or []]
    return listing.jobs(words, limit, data=data, team=team, output=Output(as_json=as_json))


def job(
    job: JobArgument,
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show one job and its images."""
    from cli import listing  # noqa: PLC0415 - slow to import

    return listing.job(job, data=data, team=team, output=Output(as_json=as_json))


def cancel(
    job: JobArgument,
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Cancel a job; images it has made stay."""
    from cli import listing  # noqa: PLC0415 - slow to import

    return listing.cancel(job, data=data, team=team, output=Output(as_json=as_json))
