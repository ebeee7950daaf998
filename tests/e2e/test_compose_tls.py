"""Two services with the very certificates that docker-compose gives them, and who gets in."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contentshop.enqueue.v1 import enqueue_pb2, enqueue_pb2_grpc
from libs.common.errors import UnavailableError
from libs.common.grpc_client import ClientTls, RpcClient, open_channel
from tests.support.certificates import make_certificates
from tests.support.compose import make_secrets
from tests.support.databases import ROOT
from tests.support.fleet import AUTH_SECRET, Fleet, FleetTls, Servers
from tests.support.shown_lines import run_blocks

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("show_logs")]

PHOTO = (ROOT / "examples" / "photos" / "mug.jpg").read_bytes()
HEALTH = ROOT / "deploy" / "compose" / "health.py"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make-secrets.sh makes; the fleet signs tokens with a secret of its own."""
    secrets = make_secrets(tmp_path_factory.mktemp("compose"))
    (secrets / "auth_secret").write_text(AUTH_SECRET)
    return secrets


@pytest.fixture(scope="module")
async def fleet(servers: Servers, secrets: Path) -> AsyncIterator[Fleet]:
    """assets and enqueue, each with its own certificate; the tests have the gateway's."""
    gateway = FleetTls(secrets / "tls_ca", secrets / "gateway_cert", secrets / "gateway_key")
    async with Fleet(servers, tls=gateway) as fleet:
        await fleet.prepare(migrate=False)
        for service in ("assets", "enqueue"):
            fleet.start(
                service,
                TLS_CERT=str(secrets / f"{service}_cert"),
                TLS_KEY=str(secrets / f"{service}_key"),
            )
        await fleet.wait_ready()
        yield fleet


async def call(fleet: Fleet, tls: ClientTls | None) -> None:
    """One call of enqueue."""
    client = RpcClient(open_channel(fleet.target("enqueue"), tls), lambda: fleet.token("red"))
    stub = enqueue_pb2_grpc.EnqueueServiceStub(client.channel)
    try:
        await client.unary(stub.ListJobs, enqueue_pb2.ListJobsRequest(), timeout_seconds=20)
    finally:
        await client.close()


async def test_the_gateway_gets_in_and_enqueue_reaches_assets(fleet: Fleet) -> None:
    team = fleet.team("red")
    photo = await team.upload(PHOTO)
    assert (await team.make_job(photo, 1)).id


async def test_nobody_else_gets_in(fleet: Fleet, secrets: Path, tmp_path: Path) -> None:
    ca = secrets / "tls_ca"
    stranger = make_certificates(tmp_path)
    for tls in (None, ClientTls(ca), ClientTls(ca, stranger.certificate, stranger.key)):
        with pytest.raises(UnavailableError):
            await call(fleet, tls)
    with pytest.raises(UnavailableError):  # nor is a server of another authority believed
        await call(fleet, ClientTls(stranger.ca, secrets / "gateway_cert", secrets / "gateway_key"))
    await call(fleet, ClientTls(ca, secrets / "gateway_cert", secrets / "gateway_key"))


async def test_the_health_check_of_the_container_is_answered(fleet: Fleet, secrets: Path) -> None:
    for service in ("assets", "enqueue"):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(HEALTH), fleet.target(service)),
            *(str(secrets / name) for name in ("tls_ca", f"{service}_cert", f"{service}_key")),
        )
        async with asyncio.timeout(60):
            assert await process.wait() == 0


async def test_what_the_readme_says_of_compose_works_as_written(
    fleet: Fleet, secrets: Path
) -> None:
    folder = secrets.parent
    for name in ("examples", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    team = fleet.team("demo")
    job = await team.make_job(await team.upload(PHOTO), 1)
    targets = {name.upper(): fleet.target(name) for name in ("enqueue", "assets")}
    variables = {**targets, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    (block,) = await run_blocks(ROOT / "README.md", "compose", variables, folder)
    assert "mug.jpg" in block.said
    assert "no jobs" not in block.said
    assert f'"id": "{job.id}"' in block.said
