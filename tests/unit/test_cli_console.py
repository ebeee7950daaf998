"""What servers and files say is shown, and moves nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rich.text import Text

from cli.console import CleanConsole, clean
from cli.errors import ExitCode, Problem
from cli.output import Output, show_problem
from tests.support.house import ROOT

EVIL = "a\u202egnp.exe \x1b[2J\x9b\u2066\u2028\x00b"
SHOWN = r"a\u202egnp.exe \u001b[2J\u009b\u2066\u2028\u0000b"


def test_what_people_see_is_clean_and_json_is_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.say(EVIL)
    output.say(Text("red ", style="red").append(EVIL))
    output.note(EVIL)
    output.table([("name", "left"), (EVIL, "right")], [(EVIL, Text(EVIL)), ("c", "d")], title=EVIL)
    show_problem(
        Problem(EVIL, ExitCode.FAILED, "R", details=((EVIL, EVIL),), hint=EVIL), as_json=False
    )
    out, err = capsys.readouterr()
    assert out.count(SHOWN) == 6
    assert err.count(SHOWN) == 5
    assert clean(out) == out
    assert clean(err) == err
    Output(as_json=True).result({"name": EVIL})
    assert json.loads(capsys.readouterr().out) == {"name": EVIL}


def test_words_of_all_tongues_stay_and_tables_stay_straight(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert clean("näh ∆ שלום 靴 👟\t.\n") == "näh ∆ שלום 靴 👟\t.\n"
    Output().table([("name", "left"), ("size", "left")], [("\u202ex", "1"), ("longer name", "2")])
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.index("1") == second.index("2")


def test_colours_are_the_consoles_own() -> None:
    console = CleanConsole(
        force_terminal=True, color_system="standard", width=80, markup=False, _environ={}
    )
    with console.capture() as captured:
        console.print(Text("\x1b[31mred", style="green"))
    assert captured.get() == "\\u001b\x1b[32m[31mred\x1b[0m\n"


def test_the_console_is_imported_only_when_something_is_said() -> None:
    code = "import sys, cli.output; sys.exit('rich.console' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_who_has_gone_away_is_shown_no_traceback() -> None:
    """A refusal as JSON, to a pipe that nobody reads; the exit code says it all the same."""
    command = f"{sys.executable} -m cli.main job 1 --json --data /nowhere; echo $? >&2"
    ran = subprocess.run(
        ["bash", "-c", f"({command}) | true"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert "Traceback" not in ran.stderr
    assert ran.stderr.split()[-1] not in ("0", "1")
