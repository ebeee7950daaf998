"""Server processes of tests: started unprivileged, stopped by pid, never left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

# Waits for the end of its stdin, which only the test process holds open: however that dies, the
# server goes too, and its folder. PR_SET_PDEATHSIG would fire when the starting *thread* ends.
_WATCHDOG = """
read -r _
kill -CONT "$1"; kill -INT "$1"; sleep 2
kill -KILL "$1"
rm -rf "$2"
"""


class ServerMissingError(RuntimeError):
    """The server is not installed; `how` says in one line how to get it."""

    def __init__(self, part: str, how: str) -> None:
        super().__init__(f"{part} is not installed: {how}")
        self.part = part
        self.how = how


class StartError(RuntimeError):
    """The server is installed and did not start; carries the end of its log."""


_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 4 << 30  # what has to be free there


def server_folder(prefix: str, *, in_memory: bool = False) -> Path:
    """A short new folder that unprivileged users can be let into.

    Not under pytest's tmp_path: its parents are closed to other users, and a Unix socket's path
    must be shorter than 108 bytes.

    Args:
        prefix: of its name.
        in_memory: where there is room enough for that; else on a disk, as without it.
    """
    parent = "/tmp"
    if in_memory and os.access(_MEMORY, os.W_OK) and _free_bytes(_MEMORY) >= _MEMORY_BYTES:
        parent = str(_MEMORY)
    return Path(tempfile.mkdtemp(prefix=f"contentshop-{prefix}-", dir=parent))


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def unprivileged_user(*names: str) -> str | None:
    """Who servers run as when we are root: the first of these users that exists; else None."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in (*names, "nobody") if name in known), None)


def give_to(folder: Path, user: str | None) -> None:
    """Makes a folder the user's own, if there is one."""
    if user is not None:
        shutil.chown(folder, user)


def descendants(pid: int) -> list[int]:
    """The pid and all pids below it, parents first (Linux)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue  # it ended meanwhile
        parent = int(text.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    """Sends a signal to each that still lives."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def freeze(pids: Sequence[int]) -> None:
    """SIGSTOP to each, and waits until all their threads stand still.

    The call to kill returns before: a thread within the kernel goes on until it leaves it, and may
    answer a request on its way.
    """
    signal_all(pids, signal.SIGSTOP)
    deadline = time.monotonic() + 30
    while any(_runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise StartError(f"one of {list(pids)} does not stop")
        time.sleep(0.001)


def _runs(pid: int) -> bool:
    """Whether a thread of it is neither stopped nor ended."""
    try:
        stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}").exists()  # a thread ended under the look: look again
    return any(stat.rpartition(")")[2].split()[0] not in "TtZX" for stat in stats)


def as_user(user: str | None) -> list[str]:
    """A command that becomes the user, and then the program that follows.

    Popen's own `user` forks where it would vfork, and a fork of a process in which gRPC is at work
    may crash in gRPC's handlers before it comes to the program.
    """
    if user is None:
        return []
    group = pwd.getpwnam(user).pw_gid
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--"]


class ServerProcess:
    """One server process and the watchdog that ends it with us."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        folder: Path,
        log: Path,
        env: Mapping[str, str],
        user: str | None = None,
    ) -> None:
        """Starts it, in a session of its own (Ctrl-C ends the tests, and they end the server).

        Args:
            argv: the program and its arguments; it must not fork away.
            folder: the server's, removed by the watchdog when the test process dies.
            log: gets stdout and stderr.
            env: all of its environment.
            user: to run as; None: as ourselves.
        """
        self._log = log
        self._stopped: list[int] = []
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*as_user(user), *(str(arg) for arg in argv)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=dict(env),
                start_new_session=True,
            )
        self._watchdog: subprocess.Popen[bytes] = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(self.pid), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The server's own pid."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def require_running(self) -> None:
        """StartError with the end of the log when it has ended."""
        if not self.running:
            tail = self._log.read_text(errors="replace")[-2_000:] if self._log.exists() else ""
            raise StartError(f"ended with {self._process.returncode}:\n{tail}")

    def pause(self) -> None:
        """SIGSTOP to it and all below it; returns when they stand."""
        while self._stopped != (family := sorted(descendants(self.pid))):
            self._stopped = family  # one may have been born before its parent stood
            freeze(family)

    def resume(self) -> None:
        """SIGCONT to what was paused."""
        signal_all(self._stopped, signal.SIGCONT)
        self._stopped = []

    def wait(self, *, timeout_seconds: float) -> None:
        """Waits for its own, successful end; StartError otherwise."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._end_watchdog()
        if self._process.returncode != 0:
            self.require_running()

    def kill(self) -> None:
        """SIGKILL; waits for its end and that of all below it, which must notice by themselves."""
        family = descendants(self.pid)
        self.end(signal.SIGKILL, timeout_seconds=10)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in family):
            if time.monotonic() > deadline:
                signal_all(family, signal.SIGKILL)
            time.sleep(0.01)

    def end(self, number: signal.Signals, *, timeout_seconds: float) -> None:
        """Sends the signal and waits; SIGKILL when it takes too long."""
        self.resume()
        if self.running:
            self._process.send_signal(number)
            try:
                self._process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._end_watchdog()

    def _end_watchdog(self) -> None:
        if self._watchdog.poll() is None:
            self._watchdog.kill()
            self._watchdog.wait(10)
        stdin: IO[bytes] | None = self._watchdog.stdin
        if stdin is not None:
            stdin.close()


def wait_until_ready(
    process: ServerProcess, ready: Callable[[], bool], *, timeout_seconds: float
) -> None:
    """Polls `ready()` until true; StartError when the process ends or time is up."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        process.require_running()
        if time.monotonic() > deadline:
            raise StartError(f"not ready within {timeout_seconds} s")
        time.sleep(0.02)
