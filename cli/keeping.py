"""`contentshop folders …` and `contentshop moodboard …`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DataOption, JsonOption, LimitOption, TeamOption, parse_id
from cli.output import Output

folders = typer.Typer(help="Folders: sets of files under a name.", no_args_is_help=True)
moodboard = typer.Typer(help="Moodboards that are kept for many jobs.", no_args_is_help=True)

FolderArgument = Annotated[
    int, typer.Argument(parser=parse_id, metavar="FOLDER", help="Its id", show_default=False)
]
MoodboardArgument = Annotated[
    int, typer.Argument(parser=parse_id, metavar="MOODBOARD", help="Its id", show_default=False)
]
_IMAGE = "FILE|ID"


@folders.command("list")
def list_folders(
    *,
    limit: LimitOption = 50,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """List the team's folders, newest first."""
    from cli import keeping_folders  # noqa: PLC0415 - slow to import

    return keeping_folders.list_all(limit, data=data, team=team, output=Output(as_json=as_json))


@folders.command("create")
def create_folder(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name", show_default=False)],
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make a folder; prints its id."""
    from cli import keeping_folders  # noqa: PLC0415 - slow to import

    return keeping_folders.create(name, data=data, team=team, output=Output(as_json=as_json))


@folders.command("show")
def show_folder(
    folder: FolderArgument,
    *,
    limit: LimitOption = 50,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show a folder and its newest files."""
    from cli import keeping_folders  # noqa: PLC0415 - slow to import

    output = Output(as_json=as_json)
    return keeping_folders.show(folder, limit, data=data, team=team, output=output)


@moodboard.command("list")
def list_moodboards(
    *,
    limit: LimitOption = 50,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """List the team's moodboards, newest first."""
    from cli import keeping_moodboards  # noqa: PLC0415 - slow to import

    return keeping_moodboards.list_all(limit, data=data, team=team, output=Output(as_json=as_json))


@moodboard.command("create")
def create_moodboard(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name", show_default=False)],
    *,
    positive: Annotated[
        list[str] | None,
        typer.Option(metavar=_IMAGE, help="A mood that is wanted; repeatable", show_default=False),
    ] = None,
    negative: Annotated[
        list[str] | None,
        typer.Option(metavar=_IMAGE, help="One that is not; repeatable", show_default=False),
    ] = None,
    background_image: Annotated[
        str, typer.Option(metavar=_IMAGE, help="A scene", show_default=False)
    ] = "",
    model_image: Annotated[
        str, typer.Option(metavar=_IMAGE, help="A person", show_default=False)
    ] = "",
    style: Annotated[
        str, typer.Option(metavar="TEXT", help="Words added to the prompt", show_default=False)
    ] = "",
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Keep a moodboard, uploading photos where they are local; prints its id."""
    from cli import keeping_moodboards  # noqa: PLC0415 - slow to import

    wish = keeping_moodboards.MoodboardWish(
        name, positive or [], negative or [], background_image, model_image, style
    )
    return keeping_moodboards.create(wish, data=data, team=team, output=Output(as_json=as_json))


@moodboard.command("show")
def show_moodboard(
    moodboard_id: MoodboardArgument,
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show a moodboard."""
    from cli import keeping_moodboards  # noqa: PLC0415 - slow to import

    output = Output(as_json=as_json)
    return keeping_moodboards.show(moodboard_id, data=data, team=team, output=output)


@moodboard.command("delete")
def delete_moodboard(
    moodboard_id: MoodboardArgument,
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Delete a moodboard; its files stay."""
    from cli import keeping_moodboards  # noqa: PLC0415 - slow to import

    output = Output(as_json=as_json)
    return keeping_moodboards.delete(moodboard_id, data=data, team=team, output=output)
