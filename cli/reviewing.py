"""`contentshop retry JOB`, `explain JOB`, `review JOB` and `rate JOB INDEX RATING`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DataOption, JobArgument, JsonOption, RequestIdOption, TeamOption
from cli.output import Output


def retry(
    job: JobArgument,
    *,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Make only the images that are not done")
    ] = False,
    request_id: RequestIdOption = "",
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run a failed job again, as a new job; prints its id."""
    from cli import acting  # noqa: PLC0415 - slow to import

    return acting.retry(
        job,
        only_missing=only_missing,
        request_id=request_id,
        data=data,
        team=team,
        output=Output(as_json=as_json),
    )


def explain(
    job: JobArgument,
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say why a job waits, and for how long."""
    from cli import acting  # noqa: PLC0415 - slow to import

    return acting.explain(job, data=data, team=team, output=Output(as_json=as_json))


def review(
    job: JobArgument,
    *,
    approve: Annotated[bool, typer.Option("--approve", help="Its images may be used")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="They may not")] = False,
    notes: Annotated[str, typer.Option(metavar="TEXT", help="Why", show_default=False)] = "",
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say whether a job's images may be used; the last word stands."""
    from cli import acting  # noqa: PLC0415 - slow to import

    if approve == reject:
        raise typer.BadParameter("say either --approve or --reject")
    return acting.review(
        job, approve=approve, notes=notes, data=data, team=team, output=Output(as_json=as_json)
    )


def rate(
    job: JobArgument,
    index: Annotated[int, typer.Argument(min=1, metavar="INDEX", help="The image, from 1")],
    rating: Annotated[
        int, typer.Argument(min=0, max=5, metavar="1-5", help="How good; 0 takes it back")
    ],
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Rate one image of a job."""
    from cli import acting  # noqa: PLC0415 - slow to import

    return acting.rate(job, index, rating, data=data, team=team, output=Output(as_json=as_json))
