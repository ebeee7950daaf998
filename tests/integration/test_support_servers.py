"""The servers that tests start: side by side, killed, frozen, and gone with the test process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.conftest import started_or_skip
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy

pytestmark = pytest.mark.real

_ABANDON = """
from tests.support.postgres import PostgresServer
server = PostgresServer(fsync=False)
server.start()
print(server._process.pid, server._folder, flush=True)
input()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresServer]:
    yield from started_or_skip(lambda: PostgresServer(fsync=False))


def test_databases_are_cloned_and_survive_a_kill(cluster: PostgresServer) -> None:
    with psycopg.connect(cluster.create_database("template_of_ours")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    clone = cluster.create_database("clone", template="template_of_ours")
    cluster.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(clone, connect_timeout=2)
    cluster.start()
    with psycopg.connect(clone) as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (7,)
    cluster.drop_database("clone")


def test_a_frozen_cluster_answers_when_thawed(cluster: PostgresServer) -> None:
    with psycopg.connect(cluster.superuser_dsn()) as connection:
        cluster.pause()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(cluster.superuser_dsn(), connect_timeout=1)
        cluster.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_two_clusters_live_side_by_side(
    cluster: PostgresServer, postgres_server: PostgresServer
) -> None:
    for server in (cluster, postgres_server):
        with psycopg.connect(server.superuser_dsn()) as connection:
            assert connection.execute("SHOW port").fetchone() == (str(server.port),)


@pytest.mark.usefixtures("cluster")  # installed, or skipped
async def test_a_server_ends_with_the_process_that_started_it() -> None:
    root = Path(__file__).parents[2]
    owner = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _ABANDON,
        cwd=root,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert owner.stdout is not None
    pid, folder = (await owner.stdout.readline()).decode().split()
    process = Path("/proc") / pid
    await eventually(process.exists)
    owner.kill()
    await owner.wait()
    await eventually(lambda: not process.exists(), timeout_seconds=30)
    await eventually(lambda: not Path(folder).exists(), timeout_seconds=30)


async def test_the_proxy_drops_cuts_and_heals(cluster: PostgresServer) -> None:
    async with TcpProxy(cluster.host, cluster.port) as proxy:
        url = f"postgresql://postgres@{proxy.host}:{proxy.port}/postgres"

        async def answers(seconds: int = 30) -> bool:
            try:
                connecting = psycopg.AsyncConnection.connect(url, connect_timeout=seconds)
                async with await connecting as open_:
                    await open_.execute("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        assert await answers()
        for fault in (proxy.drop_c2s, proxy.drop_s2c, proxy.blackhole):
            fault()
            assert not await answers(2)
            await proxy.heal()
            assert await answers()
        proxy.cut_after(3)
        assert not await answers()
        await proxy.refuse()
        assert not await answers()
        await proxy.heal()
        proxy.delay(50)
        assert await answers()
