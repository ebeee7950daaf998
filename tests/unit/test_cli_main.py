"""Arguments in, exit codes out: the command in this process, without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from cli.datafolder import DataFolder
from cli.main import main
from tests.support.house import ROOT, environ

COMMANDS = (
    *("up", "demo", "generate", "edit", "upload", "download"),
    *("jobs", "job", "watch", "cancel", "retry", "explain", "review", "rate", "batch"),
    *("credits", "usage", "storage", "workflows", "folders", "moodboard", "token", "ops"),
)
GROUPS = {
    "batch": ("create", "list", "show", "watch", "cancel", "retry", "download"),
    "folders": ("list", "create", "show"),
    "moodboard": ("list", "create", "show", "delete"),
    "ops": (
        *("queues", "metrics", "dead", "requeue", "grant", "limits", "pause", "resume", "model"),
        *("audit", "credits-check"),
    ),
}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*([command] if command else []), "--help"]) == 0
    assert "Usage: contentshop" in capsys.readouterr().out


def test_groups_have_their_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for group, commands in GROUPS.items():
        assert main([group, "--help"]) == 0
        shown = capsys.readouterr().out
        for command in commands:
            assert f"│ {command} " in shown
            assert main([group, command, "--help"]) == 0
            assert "--json" in capsys.readouterr().out


def test_help_lists_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f"│ {command} " in shown
    assert "6  right request, wrong moment" in shown


def test_nothing_to_do_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: contentshop" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["nope"], "No such command 'nope'"),
        (["job"], "Missing argument 'JOB'"),
        (["job", "x"], "'x' is not an id"),
        (["job", "0"], "'0' is not an id"),
        (["job", str(2**63)], "is not an id"),
        (["watch", "1", "--after", "-1"], "--after"),
        (["generate"], "Missing option '--product-image'"),
        (["generate", "--product-image", "1", "-n", "11"], "--variations"),
        (["generate", "--product-image", "1", "--quality", "best"], "is not one of 'fast', 'high'"),
        (["jobs", "--state", "lost"], "is not one of 'queued'"),
        (["jobs", "--limit", "0"], "--limit"),
        (["up", "--port-base", "70000"], "--port-base"),
        (["rate", "1", "0", "3"], "INDEX"),
        (["rate", "1", "1", "6"], "1-5"),
        (["review", "1"], "either --approve or --reject"),
        (["review", "1", "--approve", "--reject"], "either --approve or --reject"),
        (["batch", "show", "x"], "'x' is not an id"),
        (["batch", "create", "a.yaml", "--estimate", "--watch"], "--estimate enqueues nothing"),
        (["ops", "grant", "red", "0"], "CREDITS"),
        (["usage", "--last", "long"], "is not a length of time"),
        (["token", "--ttl", "2h"], "at most 1h"),
        (["token", "--ttl", "soon"], "is not a length of time"),
    ],
)
def test_wrong_arguments(args: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert text in shown.err
    assert "--help" in shown.err
    assert main([*args, "--json"]) == 2
    assert text in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_bad_file_is_found_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, text in ((tmp_path, "it is not a file"), (tmp_path / "no.png", "no such file")):
        assert main(["upload", str(path), "--data", str(tmp_path)]) == 2
        assert text in capsys.readouterr().err


def test_a_bad_folder_is_found_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    for folder in (taken, taken / "deeper", Path("/proc/self/fd")):
        for command in (
            ("generate", "--product-image", "1"),
            ("download", "1"),
            ("batch", "download", "1"),
        ):
            assert main([*command, "--out", str(folder), "--data", str(tmp_path), "--json"]) == 2
            problem = json.loads(capsys.readouterr().out)["error"]
            assert problem["reason"] == "BAD_FOLDER"


def test_without_a_house(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "--data", str(tmp_path), "--json"]) == 5
    shown = capsys.readouterr()
    problem = json.loads(shown.out)["error"]
    assert problem["reason"] == "NOT_RUNNING"
    assert problem["hint"] == f"Start it: contentshop up --data {tmp_path}"
    assert "Traceback" not in shown.err


def test_a_token_is_signed_with_the_house_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = DataFolder(tmp_path).make_secrets()
    args = ["token", "--data", str(tmp_path), "--team", "shoes", "--scope", "team", "--ttl", "90s"]
    assert main(args) == 0
    claims = jwt.decode(
        capsys.readouterr().out.strip(), secrets.auth, algorithms=["HS256"], audience="contentshop"
    )
    assert (claims["team"], claims["scope"]) == ("shoes", "team")
    assert claims["exp"] - claims["iat"] == 90


def test_gemini_without_a_key_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["up", "--data", str(tmp_path), "--port-base", "0", "--generator", "gemini"]
    if "GEMINI_API_KEY" in environ():
        pytest.skip("there is a key")
    assert main(args) == 2
    assert "GEMINI_API_KEY" in capsys.readouterr().err


def test_help_loads_nothing_slow() -> None:
    code = (
        "import sys; from cli.main import main; main(['--help']);"
        "slow = {'grpc', 'sqlalchemy', 'PIL', 'services', 'google.genai'} & set(sys.modules);"
        "sys.exit(','.join(slow) or 0)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environ(),
        cwd=ROOT,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
