"""What the command says: results on stdout, progress and errors on stderr; or JSON on stdout.

Nothing the server or the user wrote is read as rich markup, or shown with characters that a
terminal obeys (cli/console.py). Without a terminal there are no
escape codes, and lines are not cut to a width.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.errors import Problem

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_WIDTH = 200  # columns when nobody looks: tables must not wrap


def _console(*, stderr: bool) -> Console:
    from cli.console import CleanConsole  # noqa: PLC0415 - slow to import

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return CleanConsole(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


class Output:
    """One command's voice.

    Args:
        as_json: only JSON on stdout; nothing else but a final error is said.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._stdout: Console | None = None
        self._stderr: Console | None = None

    @property
    def stdout(self) -> Console:
        """For results."""
        self._stdout = self._stdout or _console(stderr=False)
        return self._stdout

    @property
    def stderr(self) -> Console:
        """For progress."""
        self._stderr = self._stderr or _console(stderr=True)
        return self._stderr

    def say(self, *parts: RenderableType, style: str = "") -> None:
        """A result for people, on stdout."""
        if not self.as_json:
            self.stdout.print(*parts, style=style or None, soft_wrap=True)

    def note(self, text: str, *, style: str = "dim") -> None:
        """What goes on, for people, on stderr."""
        if not self.as_json:
            self.stderr.print(text, style=style, soft_wrap=True)

    def warn(self, text: str) -> None:
        """What people should look at twice, on stderr."""
        self.note(f"warning: {text}", style="yellow")

    def result(self, payload: Mapping[str, Any]) -> None:
        """The one JSON object (or one line of many), when JSON is asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(payload, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def table(
        self,
        columns: Sequence[tuple[str, str]],
        rows: Sequence[Sequence[RenderableType]],
        *,
        title: str = "",
    ) -> None:
        """A table on stdout; a column is (heading, `left` or `right`)."""
        if self.as_json:
            return
        from rich import box  # noqa: PLC0415 - slow to import
        from rich.table import Table  # noqa: PLC0415

        from cli.console import cleaned  # noqa: PLC0415

        table = Table(
            title=title or None,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD if self.stdout.is_terminal else None,
            header_style="bold" if self.stdout.is_terminal else "",
            show_edge=False,
            pad_edge=False,
        )
        for heading, justify in columns:
            table.add_column(heading, justify="right" if justify == "right" else "left")
        for row in rows:
            table.add_row(*(cleaned(cell) for cell in row))
        self.stdout.print(table)


def _sentence(problem: Problem) -> str:
    message = problem.message.rstrip(".")
    if problem.details:
        return f"{message}:"
    return message if message.endswith("?") else f"{message}."


def show_problem(problem: Problem, *, as_json: bool) -> None:
    """An error, on stderr as a sentence, and on stdout as JSON where that is asked for."""
    if as_json:
        sys.stdout.write(json.dumps(problem.payload(), ensure_ascii=False) + "\n")
        sys.stdout.flush()
    console = _console(stderr=True)
    from rich.text import Text  # noqa: PLC0415 - slow to import

    sentence = Text("contentshop: ", style="bold red").append(
        _sentence(problem), style="default not bold"
    )
    console.print(sentence, soft_wrap=True)
    for where, what in problem.details:
        console.print(
            Text(f"  {where}: ", style="bold").append(what, style="not bold"), soft_wrap=True
        )
    if problem.hint:
        console.print(Text(f"  {problem.hint}", style="cyan"), soft_wrap=True)
