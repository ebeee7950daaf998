"""A private RabbitMQ node for tests."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from pamqp import commands, frame
from pamqp.header import ProtocolHeader

from tests.support.ports import free_port
from tests.support.process import (
    ServerMissingError,
    ServerProcess,
    StartError,
    server_folder,
    wait_until_ready,
)

_CONFIG = """
listeners.tcp.1 = 127.0.0.1:{port}
vm_memory_high_watermark.relative = {watermark}
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 33554432
log.file.level = info
"""
WATERMARK = "0.4"


def find_script(name: str) -> Path:
    """The node's own sbin script; ServerMissingError where there is none.

    Not the Debian wrapper in /usr/sbin: that switches user and folder.
    """
    places = [
        *sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"), reverse=True),
        Path("/usr/lib/rabbitmq/bin"),
        Path("/opt/rabbitmq/sbin"),
        *sorted(Path("/opt").glob("rabbitmq_server-*/sbin"), reverse=True),
    ]
    for place in places:
        if (place / name).exists() and shutil.which("erl") and shutil.which("epmd"):
            return place / name
    raise ServerMissingError("RabbitMQ", "apt-get install rabbitmq-server (it need not run)")


class RabbitServer:
    """One node with its own epmd: data kept over stop, kill and restart, gone on close."""

    def __init__(self) -> None:
        """Finds the scripts; ServerMissingError where there are none."""
        self._server_script = find_script("rabbitmq-server")
        self._ctl_script = find_script("rabbitmqctl")
        self._folder = server_folder("rmq")
        self._epmd: ServerProcess | None = None
        self._process: ServerProcess | None = None
        self.host = "127.0.0.1"
        self.port = free_port()
        self.node = f"contentshop-{secrets.token_hex(4)}@localhost"
        self._env = self._environment()
        self._write_files()

    def start(self) -> None:
        """Starts it and returns when a client can open a connection."""
        if self._process is not None and self._process.running:
            return
        self._start_epmd()
        self._process = ServerProcess(
            [self._server_script], folder=self._folder, log=self._startup_log, env=self._env
        )
        wait_until_ready(self._process, self._opens_connection, timeout_seconds=90)

    def stop(self) -> None:
        """Orderly shutdown."""
        if self._process is not None:
            self._process.end(signal.SIGTERM, timeout_seconds=30)

    def sync_metadata(self) -> None:
        """Writes what the node knows of new queues to disk now; call it before a kill.

        A quorum queue declared in the 2 s before a SIGKILL never finds a leader again (3.10.8, seen
        every time). Production declares its queues once; tests kill right after.
        """
        self.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def kill(self) -> None:
        """SIGKILL of the node; see sync_metadata for queues that are seconds old."""
        self._running().kill()

    def pause(self) -> None:
        """SIGSTOP of the node and all below it."""
        self._running().pause()

    def resume(self) -> None:
        """SIGCONT of what was paused."""
        self._running().resume()

    def restart(self) -> None:
        """Stops (if it runs) and starts on the same data and port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends node and epmd for good and removes their folder."""
        if self._process is not None:
            self._process.kill()
        if self._epmd is not None:
            self._epmd.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ctl(self, *args: str, timeout_seconds: float = 180) -> str:
        """Runs rabbitmqctl against the node (about a second each) and returns what it prints."""
        done = subprocess.run(
            [str(self._ctl_script), "-q", "-n", self.node, *args],
            env=self._env,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {args[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def amqp_url_of(self, vhost: str = "/", *, port: int | None = None) -> str:
        """URL of a vhost, through another port (a proxy's) if given."""
        return f"amqp://guest:guest@{self.host}:{port or self.port}/{quote(vhost, safe='')}"

    @property
    def amqp_url(self) -> str:
        """URL of the default vhost."""
        return self.amqp_url_of()

    def create_vhost(self, name: str) -> str:
        """Creates a vhost that guest may use; returns its URL."""
        # One erlang call instead of two rabbitmqctl runs.
        self.ctl(
            "eval",
            f'rabbit_vhost:add(<<"{name}">>, <<"test">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<"test">>).',
        )
        return self.amqp_url_of(name)

    @property
    def log_path(self) -> Path:
        """The node's log."""
        return self._folder / "log" / f"{self.node}.log"

    @property
    def _startup_log(self) -> Path:
        return self._folder / "startup.log"

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        erlang = Path(shutil.which("erl") or "/usr/bin/erl").parent
        return {
            "PATH": f"{erlang}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(folder),  # of .erlang.cookie
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": self.host,
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_PLUGINS_EXPAND_DIR": str(folder / "plugins"),
            "RABBITMQ_PID_FILE": str(folder / "node.pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),  # not /etc/rabbitmq's
            # The script then becomes the node instead of starting it below itself, so that the
            # pid we hold is the node's.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def _write_files(self) -> None:
        folder = self._folder
        folder.joinpath("rabbitmq.conf").write_text(
            _CONFIG.format(port=self.port, watermark=WATERMARK)
        )
        folder.joinpath("enabled_plugins").write_text("[].\n")
        folder.joinpath("advanced.config").write_text("[].\n")
        folder.joinpath("rabbitmq-env.conf").write_text("")
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)

    def _start_epmd(self) -> None:
        if self._epmd is not None and self._epmd.running:
            return
        epmd = shutil.which("epmd")
        assert epmd is not None
        port = int(self._env["ERL_EPMD_PORT"])
        self._epmd = ServerProcess(
            [epmd, "-port", str(port), "-address", self.host],
            folder=self._folder,
            log=self._folder / "epmd.log",
            env=self._env,
        )
        wait_until_ready(self._epmd, lambda: _listens(self.host, port), timeout_seconds=60)

    def _opens_connection(self) -> bool:
        """Whether the node lets guest open the default vhost: later than its port is open."""
        try:
            with socket.create_connection((self.host, self.port), timeout=2) as client:
                client.settimeout(5)
                _open_amqp(client)
        except (OSError, EOFError):
            time.sleep(0.1)
            return False
        return True

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise StartError("not started")
        return self._process

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _open_amqp(client: socket.socket) -> None:
    """The client's half of AMQP's opening; EOFError when the server hangs up."""
    client.sendall(ProtocolHeader().marshal())
    _read_frame(client)  # Start
    start_ok = commands.Connection.StartOk(
        client_properties={}, mechanism="PLAIN", response="\0guest\0guest", locale="en_US"
    )
    client.sendall(frame.marshal(start_ok, 0))
    _read_frame(client)  # Tune
    client.sendall(frame.marshal(commands.Connection.TuneOk(1, 131_072, 0), 0))
    client.sendall(frame.marshal(commands.Connection.Open("/"), 0))
    if type(_read_frame(client)) is not commands.Connection.OpenOk:
        raise EOFError  # a Close: the vhost is not there yet
    client.sendall(frame.marshal(commands.Connection.Close(200, "probe", 0, 0), 0))
    _read_frame(client)  # CloseOk


def _read_frame(client: socket.socket) -> object:
    head = _read(client, 7)
    size = int.from_bytes(head[3:7], "big")
    return frame.unmarshal(head + _read(client, size + 1))[2]


def _read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
