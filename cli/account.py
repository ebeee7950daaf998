"""`contentshop credits`, `usage`, `storage` and `workflows`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DataOption, JsonOption, LimitOption, TeamOption, parse_seconds
from cli.output import Output


def credits_(
    *,
    entries: Annotated[bool, typer.Option("--entries", help="Show the ledger")] = False,
    limit: LimitOption = 50,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show the team's credits; one credit is one image."""
    from cli import accounting  # noqa: PLC0415 - slow to import

    return accounting.credits_(
        entries=entries, limit=limit, data=data, team=team, output=Output(as_json=as_json)
    )


def usage(
    *,
    last: Annotated[str, typer.Option(metavar="TIME", help="How far back: 90m, 24h")] = "720h",
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show what the team's images took: tokens and cost."""
    from cli import accounting  # noqa: PLC0415 - slow to import

    seconds = parse_seconds(last)
    return accounting.usage(seconds, data=data, team=team, output=Output(as_json=as_json))


def storage(
    *, data: DataOption = None, team: TeamOption = None, as_json: JsonOption = False
) -> int:
    """Show how many bytes the team stores, and how many it may."""
    from cli import accounting  # noqa: PLC0415 - slow to import

    return accounting.storage(data=data, team=team, output=Output(as_json=as_json))


def workflows(
    *, data: DataOption = None, team: TeamOption = None, as_json: JsonOption = False
) -> int:
    """Show what jobs can be asked for, and what their input may say."""
    from cli import accounting  # noqa: PLC0415 - slow to import

    return accounting.workflows(data=data, team=team, output=Output(as_json=as_json))
