"""`contentshop token`: a token for development, signed with the house's own secret."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.options import DataOption, JsonOption, TeamOption, parse_seconds
from cli.output import Output

MAX_LIFE_SECONDS = 3600


def token(
    *,
    team: TeamOption = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: team, review, ops; repeatable", show_default="team"),
    ] = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="Its life: 90s, 15m; at most 1h")] = "1h",
    secret: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Another secret than the data folder's", show_default=False
        ),
    ] = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make a bearer token for development; prints it."""
    from datetime import timedelta  # noqa: PLC0415 - slow to import

    from cli.connection import ISSUER, checked_team, cli_settings, data_folder  # noqa: PLC0415
    from libs.common.auth import mint_user_token  # noqa: PLC0415
    from libs.common.clock import SystemClock  # noqa: PLC0415

    seconds = parse_seconds(ttl)
    if not 1 <= seconds <= MAX_LIFE_SECONDS:
        raise typer.BadParameter("a token lives at least 1s and at most 1h", param_hint="'--ttl'")
    settings = cli_settings()
    made = mint_user_token(
        secret=secret or data_folder(data, settings).read_secrets().auth,
        issuer=ISSUER,
        team=checked_team(team or settings.team),
        scopes=scope or ["team"],
        clock=SystemClock(),
        life=timedelta(seconds=seconds),
    )
    output = Output(as_json=as_json)
    if not as_json:
        sys.stdout.write(made + "\n")
    output.result({"token": made, "expires_in_seconds": seconds})
    return 0
