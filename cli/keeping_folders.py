"""What `contentshop folders …` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli import words
from cli.asking import ask, ask_pages
from cli.errors import ExitCode
from cli.output import Output
from cli.plain import enum_word, to_plain
from contentshop.assets.v1 import assets_pb2

_KINDS = assets_pb2.FolderKind.DESCRIPTOR


def list_all(limit: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Lists folders, newest first."""
    request = assets_pb2.ListFoldersRequest()
    found, more = ask_pages(
        "assets", "ListFolders", request, "folders", limit=limit, data=data, team=team
    )
    _table(found, output)
    output.result({"folders": [to_plain(folder) for folder in found], "more": more})
    return ExitCode.OK


def _table(found: Sequence[assets_pb2.Folder], output: Output) -> None:
    output.table(
        [("folder", "right"), ("kind", "left"), ("files", "right"), ("name", "left")],
        [
            (
                str(folder.id),
                enum_word(_KINDS, folder.kind).lower().replace("_", " "),
                str(folder.file_count),
                folder.name,
            )
            for folder in found
        ],
    )


def create(name: str, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Makes a folder."""
    request = assets_pb2.CreateFolderRequest(name=name)
    folder = ask("assets", "CreateFolder", request, data=data, team=team).folder
    output.say(str(folder.id))
    output.result({"folder": to_plain(folder)})
    return ExitCode.OK


def show(
    folder_id: int, limit: int, *, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Shows a folder and its files."""
    wanted = assets_pb2.GetFolderRequest(folder_id=folder_id)
    folder = ask("assets", "GetFolder", wanted, data=data, team=team).folder
    request = assets_pb2.ListFolderFilesRequest(folder_id=folder_id)
    files, more = ask_pages(
        "assets", "ListFolderFiles", request, "files", limit=limit, data=data, team=team
    )
    _table([folder], output)
    output.say("")
    output.table(
        [("file", "right"), ("job", "right"), ("size", "right"), ("name", "left")],
        [
            (str(file.id), str(file.job_id or ""), words.size(file.size_bytes), file.filename)
            for file in files
        ],
    )
    output.result(
        {"folder": to_plain(folder), "files": [to_plain(file) for file in files], "more": more}
    )
    return ExitCode.OK
