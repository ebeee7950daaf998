"""The folder of an embedded house: who holds it, its secrets, where its services listen."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cli.errors import CliError, ExitCode, NotRunningError

SERVICES = ("enqueue", "assets", "packager", "worker")
SECRET_BYTES = 32
_PRIVATE_FILE = 0o600
_PRIVATE_FOLDER = 0o700


@dataclass(frozen=True, slots=True)
class Secrets:
    """The two secrets of a house: what signs user tokens, what signs service tokens."""

    auth: str = field(repr=False)
    service: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running house listens, and which process it is."""

    pid: int
    enqueue: str
    assets: str
    packager: str
    worker: str
    generator: str


class DataFolder:
    """One folder; `up` writes it, the other commands read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._endpoints = path / "endpoints.json"
        self._restoring = path / "restoring"

    @property
    def how_to_start(self) -> str:
        """What to type to start a house here."""
        return f"Start it: contentshop up --data {self.path}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and holds it alone; the kernel lets go of it when we die.

        Raises:
            CliError: another process holds it, or it cannot be made.
        """
        try:
            self.path.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, _PRIVATE_FILE)
        except OSError as error:
            raise CliError(
                f"the data folder {self.path} cannot be used: {error.strerror}",
                ExitCode.USAGE,
                hint="Choose another with --data.",
                reason="DATA_FOLDER",
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._taken(os.pread(descriptor, 20, 0)) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _taken(self, holder: bytes) -> CliError:
        who = f" (process {holder.decode()})" if holder.isdigit() else ""
        return CliError(
            f"another contentshop{who} is already running on {self.path}",
            ExitCode.REFUSED,
            hint="Use it as it is, stop it first, or choose another folder with --data.",
            reason="DATA_FOLDER_IN_USE",
        )

    @property
    def half_restored(self) -> bool:
        """Whether a restore began here and did not end."""
        return self._restoring.exists()

    def check_whole(self) -> None:
        """CliError where it is half restored."""
        if self.half_restored:
            raise CliError(
                f"a restore into {self.path} was cut short",
                ExitCode.REFUSED,
                hint=f"Do it again: contentshop restore DIR --data {self.path}",
                reason="HALF_RESTORED",
            )

    def begin_restore(self) -> None:
        """Nothing is served from here until it has ended; only for the holder."""
        _write_whole(self._restoring, "")

    def end_restore(self) -> None:
        """It is a house."""
        self._restoring.unlink(missing_ok=True)

    def make_secrets(self) -> Secrets:
        """The secrets, made now if this is the first time; only for the holder."""
        folder = self.path / "secrets"
        folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        folder.chmod(_PRIVATE_FOLDER)
        for name in ("auth", "service"):
            file = folder / name
            if file.exists():
                file.chmod(_PRIVATE_FILE)
            else:
                _write_whole(file, secrets.token_hex(SECRET_BYTES))
        return self.read_secrets()

    def read_secrets(self) -> Secrets:
        """The secrets; CliError where there are none or we may not read them."""
        folder = self.path / "secrets"
        try:
            return Secrets(
                (folder / "auth").read_text(encoding="ascii").strip(),
                (folder / "service").read_text(encoding="ascii").strip(),
            )
        except FileNotFoundError:
            raise NotRunningError(
                f"nothing was ever started on {self.path}", hint=self.how_to_start
            ) from None
        except OSError as error:
            raise CliError(
                f"the secrets of {self.path} cannot be read: {error.strerror}",
                ExitCode.DENIED,
                hint="Give a token in CONTENTSHOP_TOKEN.",
                reason="SECRETS_UNREADABLE",
            ) from None

    def write_endpoints(self, endpoints: Endpoints) -> None:
        """Says where the services listen, all at once or not at all."""
        _write_whole(self._endpoints, json.dumps(asdict(endpoints), indent=2) + "\n")

    def remove_endpoints(self) -> None:
        """Nobody listens any more."""
        self._endpoints.unlink(missing_ok=True)

    def read_endpoints(self) -> Endpoints:
        """Where the running house listens; NotRunningError where none runs."""
        not_running = NotRunningError(
            f"no contentshop is running on {self.path}", hint=self.how_to_start
        )
        try:
            raw = json.loads(self._endpoints.read_text(encoding="utf-8"))
            endpoints = _endpoints_of(raw)
        except (OSError, ValueError, TypeError):
            raise not_running from None
        if not _lives(endpoints.pid):  # killed: its ports may be another's by now
            raise not_running
        return endpoints


def _endpoints_of(raw: object) -> Endpoints:
    if not isinstance(raw, dict):
        raise TypeError
    pid = raw.get("pid")
    if not isinstance(pid, int):
        raise TypeError
    names = (*SERVICES, "generator")
    return Endpoints(pid=pid, **{name: str(raw.get(name, "")) for name in names})


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is another user's
        return True
    return True


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
