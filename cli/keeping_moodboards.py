"""What `contentshop moodboard …` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli import words
from cli.asking import ask, ask_pages
from cli.connection import connect
from cli.errors import CliError, ExitCode
from cli.files import Uploader
from cli.output import Output
from cli.plain import to_plain
from cli.running import run
from contentshop.assets.v1 import assets_pb2, backend_pb2


@dataclass(frozen=True, slots=True)
class MoodboardWish:
    """What to keep; images are `FILE` or a file's id."""

    name: str
    positive: Sequence[str]
    negative: Sequence[str]
    background_image: str
    model_image: str
    style: str


def create(wish: MoodboardWish, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Keeps a moodboard."""

    async def work() -> assets_pb2.Moodboard:
        async with connect(data, team) as shop:
            key = shop.ids.token()
            uploader = Uploader(
                shop,
                key,
                lambda photo, file: output.note(f"uploaded {photo.path} as file {file.id}"),
            )
            async with uploader.undone_if_refused():
                content = assets_pb2.MoodboardContent(
                    name=wish.name,
                    positive_file_ids=await _ids(uploader, wish.positive),
                    negative_file_ids=await _ids(uploader, wish.negative),
                    style_appendix=wish.style,
                )
                if wish.background_image:
                    (content.background_file_id,) = await _ids(uploader, [wish.background_image])
                if wish.model_image:
                    (content.model_file_id,) = await _ids(uploader, [wish.model_image])
                request = assets_pb2.CreateMoodboardRequest(request_id=key, content=content)
                answer = await shop.assets.unary(lambda stub: stub.CreateMoodboard, request)
            board: assets_pb2.Moodboard = answer.moodboard
            return board

    board = run(work())
    output.say(str(board.id))
    output.result({"moodboard": to_plain(board)})
    return ExitCode.OK


async def _ids(uploader: Uploader, given: Sequence[str]) -> list[int]:
    return [_id(ref, typed) for ref, typed in zip(await uploader.refs(given), given, strict=True)]


def _id(ref: backend_pb2.ImageRef, typed: str) -> int:
    if not ref.file_id:
        raise CliError(
            f"{typed}: moodboards keep files by their ids", ExitCode.USAGE, reason="BAD_ID"
        )
    return ref.file_id


def list_all(limit: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Lists moodboards, newest first."""
    request = assets_pb2.ListMoodboardsRequest()
    found, more = ask_pages(
        "assets", "ListMoodboards", request, "moodboards", limit=limit, data=data, team=team
    )
    output.table(
        [("moodboard", "right"), ("images", "right"), ("changed", "left"), ("name", "left")],
        [
            (
                str(board.id),
                str(len(board.content.positive_file_ids) + len(board.content.negative_file_ids)),
                words.when(board.update_time),
                board.content.name,
            )
            for board in found
        ],
    )
    output.result({"moodboards": [to_plain(board) for board in found], "more": more})
    return ExitCode.OK


def show(moodboard_id: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Shows a moodboard."""
    request = assets_pb2.GetMoodboardRequest(moodboard_id=moodboard_id)
    board = ask("assets", "GetMoodboard", request, data=data, team=team).moodboard
    content = board.content
    output.say(f"moodboard {board.id}  {content.name}")
    for name, ids in (
        ("wanted", content.positive_file_ids),
        ("not wanted", content.negative_file_ids),
        ("background", [content.background_file_id]),
        ("model", [content.model_file_id]),
    ):
        if any(ids):
            output.say(f"  {name:<12}{' '.join(map(str, ids))}")
    if content.style_appendix:
        output.say(f"  {'style':<12}{content.style_appendix}")
    output.result({"moodboard": to_plain(board)})
    return ExitCode.OK


def delete(moodboard_id: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Deletes a moodboard."""
    request = assets_pb2.DeleteMoodboardRequest(moodboard_id=moodboard_id)
    ask("assets", "DeleteMoodboard", request, data=data, team=team)
    output.say(f"moodboard {moodboard_id} is deleted")
    output.result({"deleted": moodboard_id})
    return ExitCode.OK
