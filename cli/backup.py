"""`contentshop backup` and `restore`: the state of an embedded house, kept elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataOption, JsonOption
from cli.output import Output

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of the copy", show_default=False)
]


def backup(folder: FolderArgument, *, data: DataOption = None, as_json: JsonOption = False) -> int:
    """Copy a house's databases and images into a new folder, also while it runs.

    Secrets are not copied: a house that is restored makes its own.
    """
    from cli import backing_up  # noqa: PLC0415 - slow to import

    return backing_up.backup(folder, data=data, output=Output(as_json=as_json))


def restore(folder: FolderArgument, *, data: DataOption = None, as_json: JsonOption = False) -> int:
    """Bring a copy back into a data folder that holds no house; then start it with `up`."""
    from cli import restoring  # noqa: PLC0415 - slow to import: all services

    return restoring.restore(folder, data=data, output=Output(as_json=as_json))
