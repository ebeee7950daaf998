"""The data folder: one holder, private secrets, endpoints that tell the truth."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from cli.datafolder import DataFolder, Endpoints
from cli.errors import CliError, NotRunningError

HERE = Endpoints(
    pid=os.getpid(), enqueue="e:1", assets="a:2", packager="p:3", worker="w:4", generator="offline"
)


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "new" / "data")
    with folder.held():
        again = DataFolder(folder.path).held()
        with pytest.raises(CliError, match=f"process {os.getpid()}") as refused, again:
            pass
        assert refused.value.exit_code == 6
    with folder.held():
        pass


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CliError) as refused, DataFolder(tmp_path / "file").held():
        pass
    assert refused.value.exit_code == 2


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    first = folder.make_secrets()
    assert len(first.auth) == 64
    assert first.auth != first.service
    (tmp_path / "secrets").chmod(0o755)
    (tmp_path / "secrets" / "auth").chmod(0o644)
    assert folder.make_secrets() == first
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "secrets" / "auth").stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "secrets").iterdir()) == ["auth", "service"]


def test_a_secret_is_not_in_a_repr(tmp_path: Path) -> None:
    secrets = DataFolder(tmp_path).make_secrets()
    assert secrets.auth not in repr(secrets)


def test_endpoints_come_and_go(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with pytest.raises(NotRunningError):
        folder.read_endpoints()
    folder.write_endpoints(HERE)
    assert folder.read_endpoints() == HERE
    folder.remove_endpoints()
    folder.remove_endpoints()
    with pytest.raises(NotRunningError):
        folder.read_endpoints()


def test_the_endpoints_of_a_dead_process_are_nobodys(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    folder = DataFolder(tmp_path)
    folder.write_endpoints(
        Endpoints(
            pid=dead.pid, enqueue="e:1", assets="a:2", packager="p:3", worker="w:4", generator=""
        )
    )
    with pytest.raises(NotRunningError):
        folder.read_endpoints()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "null"])
def test_broken_endpoints_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "endpoints.json").write_text(text)
    with pytest.raises(NotRunningError):
        DataFolder(tmp_path).read_endpoints()
