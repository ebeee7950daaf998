"""Copies of a fleet's databases and bucket, made and brought back by the scripts operators use."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minio.error import S3Error

from tests.support.databases import ROOT, SERVICES, postgres_urls
from tests.support.fleet import Fleet
from tests.support.house import Ran, ran
from tests.support.postgres import find_binaries

SCRIPTS = ROOT / "deploy" / "postgres"


@dataclass(frozen=True)
class Backup:
    """A folder with the dumps, and the blobs as they were."""

    folder: Path
    blobs: Mapping[str, bytes]


async def take_backup(fleet: Fleet, folder: Path) -> Backup:
    """The databases, then the blobs."""
    databases = {service: fleet.urls[service].app.rpartition("/")[2] for service in SERVICES}
    pairs = [f"{service}={databases[service]}" for service in ("enqueue", "packager", "assets")]
    await _script(fleet, "backup.sh", str(folder), *pairs)
    return Backup(folder, await asyncio.to_thread(read_bucket, fleet))


async def restore(fleet: Fleet, backup: Backup, service: str) -> None:
    """Makes the service's database what it was, under another name; the service must not run."""
    server = fleet.servers.postgres
    name = f"{fleet.urls[service].app.rpartition('/')[2]}_again"
    await asyncio.to_thread(server.create_database, name, None, f"{service}_owner")
    await _script(fleet, "restore.sh", str(backup.folder), service, name)
    fleet.urls[service] = postgres_urls(server, service, name)


async def run(fleet: Fleet, service: str, command: str) -> Ran:
    """`python -m services.SERVICE COMMAND` as an operator runs it."""
    return await _run(
        *(sys.executable, "-m", f"services.{service}", command),
        env=fleet.environ(service, 0, service),
    )


def read_bucket(fleet: Fleet) -> dict[str, bytes]:
    """All blobs."""
    client = fleet.servers.seaweed.client()
    found: dict[str, bytes] = {}
    for listed in client.list_objects(fleet.bucket, recursive=True):
        key = str(listed.object_name)
        try:
            answer = client.get_object(fleet.bucket, key)
        except S3Error as error:
            if error.code == "NoSuchKey":
                continue  # it was listed, and swept before we came to it
            raise
        try:
            found[key] = answer.read()
        finally:
            answer.close()
            answer.release_conn()
    return found


async def _script(fleet: Fleet, name: str, *args: str) -> None:
    server = fleet.servers.postgres
    env = {
        "PATH": f"{find_binaries()}:/usr/bin:/bin",
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
    }
    done = await _run("bash", str(SCRIPTS / name), *args, env=env)
    assert done.code == 0, done.err


async def _run(*argv: str, env: Mapping[str, str]) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env),
    )
    return await ran(process)
