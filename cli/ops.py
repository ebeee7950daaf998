"""`contentshop ops …`: what operators ask and set, for all teams."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import (
    DataOption,
    JobArgument,
    JsonOption,
    LimitOption,
    RequestIdOption,
    parse_id,
    parse_seconds,
)
from cli.output import Output

ops = typer.Typer(
    help="For operators: queues, dead jobs, credits, limits. Needs a token with the scope ops.",
    no_args_is_help=True,
)
TeamArgument = Annotated[str, typer.Argument(metavar="TEAM", help="The team", show_default=False)]
OfTeamOption = Annotated[
    str, typer.Option("--of", metavar="TEAM", help="Only this team's", show_default=False)
]
LaneArgument = Annotated[
    str,
    typer.Argument(metavar="LANE", help="Such as image_generation.fast", show_default=False),
]


@ops.command()
def queues(*, data: DataOption = None, as_json: JsonOption = False) -> int:
    """Show what waits and runs: lanes, teams, models."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.queues(data=data, output=Output(as_json=as_json))


@ops.command()
def metrics(
    *,
    last: Annotated[str, typer.Option(metavar="TIME", help="How far back: 90m, 24h")] = "24h",
    of: OfTeamOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show how jobs went, by type."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.metrics(parse_seconds(last), of, data=data, output=Output(as_json=as_json))


@ops.command()
def dead(
    *,
    of: OfTeamOption = "",
    limit: LimitOption = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """List jobs whose attempts or workers were used up."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.dead(of, limit, data=data, output=Output(as_json=as_json))


@ops.command()
def requeue(job: JobArgument, *, data: DataOption = None, as_json: JsonOption = False) -> int:
    """Run a dead job again, as a new job; prints its id."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.requeue(job, data=data, output=Output(as_json=as_json))


@ops.command()
def grant(
    team: TeamArgument,
    amount: Annotated[int, typer.Argument(min=1, metavar="CREDITS", help="How many")],
    *,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why", show_default=False)] = "",
    request_id: RequestIdOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Give a team credits, and an account where it has none."""
    from cli import operating  # noqa: PLC0415 - slow to import

    output = Output(as_json=as_json)
    return operating.grant(team, amount, note, request_id, data=data, output=output)


@ops.command("credits-check")
def credits_check(*, data: DataOption = None, as_json: JsonOption = False) -> int:
    """Compare every account with its ledger and its jobs; fails where one differs."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.credits_check(data=data, output=Output(as_json=as_json))


@ops.command()
def limits(
    team: TeamArgument,
    *,
    live_jobs: Annotated[
        int | None, typer.Option(min=0, help="Jobs at once; 0: the default", show_default=False)
    ] = None,
    calls_per_minute: Annotated[
        int | None, typer.Option(min=0, help="Calls; 0: the default", show_default=False)
    ] = None,
    storage_bytes: Annotated[
        int | None, typer.Option(min=0, help="Stored bytes; 0: the default", show_default=False)
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Set a team's limits; what is not given stays. Without any, shows them."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.limits(
        team,
        live_jobs=live_jobs,
        calls_per_minute=calls_per_minute,
        storage_bytes=storage_bytes,
        data=data,
        output=Output(as_json=as_json),
    )


@ops.command()
def pause(
    lane: LaneArgument,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why", show_default=False)] = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let nobody take further jobs of a lane; what runs goes on."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.pause(lane, reason, data=data, output=Output(as_json=as_json))


@ops.command()
def resume(lane: LaneArgument, *, data: DataOption = None, as_json: JsonOption = False) -> int:
    """Let jobs of a lane be taken again."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.resume(lane, data=data, output=Output(as_json=as_json))


@ops.command()
def model(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Its name", show_default=False)],
    calls_per_minute: Annotated[
        int, typer.Argument(min=0, metavar="CALLS", help="Per minute; 0: no limit")
    ],
    *,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Set how many calls a model may get per minute, from all workers together."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.model(name, calls_per_minute, data=data, output=Output(as_json=as_json))


@ops.command()
def audit(
    *,
    of: OfTeamOption = "",
    job: Annotated[
        int | None,
        typer.Option(parser=parse_id, metavar="JOB", help="Only about it", show_default=False),
    ] = None,
    limit: LimitOption = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show who did what, newest first."""
    from cli import operating  # noqa: PLC0415 - slow to import

    return operating.audit(of, job or 0, limit, data=data, output=Output(as_json=as_json))
