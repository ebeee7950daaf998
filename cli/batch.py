"""`contentshop batch …`: many variants at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataOption, JsonOption, OutOption, RequestIdOption, TeamOption, parse_id
from cli.output import Output

batch = typer.Typer(help="Batches: one job per variant, up to 100 at once.", no_args_is_help=True)

BatchArgument = Annotated[
    int, typer.Argument(parser=parse_id, metavar="BATCH", help="The batch's id", show_default=False)
]
OnlyMissingOption = Annotated[
    bool, typer.Option("--only-missing", help="Make only the images that are not done")
]


@batch.command()
def create(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="YAML or JSON: name, settings, variants", show_default=False
        ),
    ],
    *,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what it would take; nothing is kept")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end")] = False,
    request_id: RequestIdOption = "",
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Upload what is local and enqueue a batch; prints its id.

    Example: contentshop batch create spring.yaml --watch
    """
    from cli import batches  # noqa: PLC0415 - slow to import

    if estimate and (watch or request_id):
        raise typer.BadParameter("--estimate enqueues nothing: no --watch, no --request-id")
    output = Output(as_json=as_json)
    if estimate:
        return batches.estimate(file, data=data, team=team, output=output)
    return batches.create(
        file, request_id=request_id, wait=watch, data=data, team=team, output=output
    )


@batch.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many")] = 20,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """List the team's batches, newest first."""
    from cli import batches  # noqa: PLC0415 - slow to import

    return batches.list_all(limit, data=data, team=team, output=Output(as_json=as_json))


@batch.command()
def show(
    batch_id: BatchArgument,
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show one batch and its jobs."""
    from cli import batches  # noqa: PLC0415 - slow to import

    return batches.show(batch_id, data=data, team=team, output=Output(as_json=as_json))


@batch.command()
def watch(
    batch_id: BatchArgument,
    *,
    after: Annotated[
        str, typer.Option(metavar="CURSOR", help="Only events after this", show_default=False)
    ] = "",
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Follow a batch to its end, also over restarts of the server; --json prints JSON lines."""
    from cli import batch_watching  # noqa: PLC0415 - slow to import

    return batch_watching.watch(
        batch_id, after=after, data=data, team=team, output=Output(as_json=as_json)
    )


@batch.command()
def cancel(
    batch_id: BatchArgument,
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Cancel every job of a batch that has not ended; images that are made stay."""
    from cli import batches  # noqa: PLC0415 - slow to import

    return batches.cancel(batch_id, data=data, team=team, output=Output(as_json=as_json))


@batch.command()
def retry(
    batch_id: BatchArgument,
    *,
    only_missing: OnlyMissingOption = False,
    request_id: RequestIdOption = "",
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run the failed jobs of a batch again."""
    from cli import batches  # noqa: PLC0415 - slow to import

    return batches.retry(
        batch_id,
        only_missing=only_missing,
        request_id=request_id,
        data=data,
        team=team,
        output=Output(as_json=as_json),
    )


@batch.command()
def download(
    batch_id: BatchArgument,
    *,
    out: OutOption = None,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Save the zip of a batch's images, a folder per variant; waits while it is built."""
    from cli import batches  # noqa: PLC0415 - slow to import

    return batches.download(batch_id, out=out, data=data, team=team, output=Output(as_json=as_json))
