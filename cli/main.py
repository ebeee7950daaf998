"""The `contentshop` command: its commands, and how every one of them ends."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence

import typer

from cli.account import credits_, storage, usage, workflows
from cli.backup import backup, restore
from cli.batch import batch
from cli.demo import demo
from cli.download import download
from cli.errors import CliError, ExitCode, Problem, exit_code_table, explain
from cli.generate import edit, generate
from cli.jobs import cancel, job, jobs
from cli.keeping import folders, moodboard
from cli.ops import ops
from cli.output import show_problem
from cli.reviewing import explain as explain_job
from cli.reviewing import rate, retry, review
from cli.tokens import token
from cli.up import up
from cli.upload import upload
from cli.watch import watch

EPILOG = "\n".join(("Exit codes:", *exit_code_table()))

app = typer.Typer(
    name="contentshop",
    help="Background images for product photos: start a house, ask for images, watch, save.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, tuple[Callable[..., int], ...]] = {
    "Run": (up, demo, backup, restore),
    "Images": (generate, edit, upload, download),
    "Jobs": (jobs, job, watch, cancel, retry, review, rate),
    "Team": (usage, storage, workflows, token),
}
_GROUPS: dict[str, tuple[tuple[str, typer.Typer], ...]] = {
    "Jobs": (("batch", batch),),
    "Team": (("folders", folders), ("moodboard", moodboard)),
    "Operators": (("ops", ops),),
}
for panel, commands in _COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command("explain", rich_help_panel="Jobs")(explain_job)
app.command("credits", rich_help_panel="Team")(credits_)
for panel, groups in _GROUPS.items():
    for name, group in groups:
        app.add_typer(group, name=name, rich_help_panel=panel)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code says how it went. Never raises, never shows a traceback."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return int(app(args, prog_name="contentshop", standalone_mode=False) or ExitCode.OK)
    except BrokenPipeError:  # who read our output has gone: `contentshop jobs | head`
        sys.stdout = None  # nothing is left to flush at exit
        return ExitCode.OK
    except typer.TyperException as error:
        if not error.format_message():  # no command: the help is the answer
            return ExitCode.USAGE
        problem = _usage_problem(error)
    except typer.Abort:
        problem = explain(KeyboardInterrupt())
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last place to tell it well
        problem = explain(error)
        if not isinstance(error, CliError) and _debugging():
            traceback.print_exc()
    try:
        show_problem(problem, as_json="--json" in args)
    except BrokenPipeError:
        sys.stdout = None  # the exit code says it all the same
    return problem.exit_code


def _usage_problem(error: typer.TyperException) -> Problem:
    # "Value error, " is pydantic's, which typer checks values with.
    message = error.format_message().replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "contentshop"
    return Problem(message, ExitCode.USAGE, "USAGE", hint=f"See: {command} --help")


def _debugging() -> bool:
    from cli.connection import cli_settings  # noqa: PLC0415 - slow to import

    return cli_settings().debug


if __name__ == "__main__":
    sys.exit(main())
