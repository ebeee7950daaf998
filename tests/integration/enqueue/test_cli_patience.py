"""The command waits where a server asks for a moment, and asks again."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.connection import Connection, ExplicitSource
from contentshop.enqueue.v1 import enqueue_pb2
from libs.common.auth import mint_user_token
from libs.common.errors import ResourceExhaustedError
from tests.integration.enqueue.house import CLOCK, USER_SECRET, House, open_house
from tests.support.databases import sqlite_database


def connection(house: House) -> Connection:
    address = f"127.0.0.1:{house.app.port}"
    targets = dict.fromkeys(("enqueue", "assets", "packager"), address)
    token = mint_user_token(
        secret=USER_SECRET, issuer="contentshop", team="red", scopes=["team"], clock=CLOCK
    )
    return Connection(ExplicitSource(targets, lambda: token))


async def use_up(shop: Connection, calls: int) -> None:
    for _ in range(calls):
        await shop.enqueue.unary(lambda stub: stub.ListJobs, enqueue_pb2.ListJobsRequest())


@pytest.mark.parametrize(("per_minute", "patient"), [("120", True), ("1", False)])
async def test_too_many_calls_wait_a_moment_but_not_for_long(
    tmp_path: Path,
    per_minute: str,
    patient: bool,  # noqa: FBT001 - which of the two
) -> None:
    urls = sqlite_database("enqueue", tmp_path)
    settings = {"CALLS_PER_MINUTE_PER_TEAM": per_minute}
    async with open_house(urls, **settings) as house, connection(house) as shop:
        await use_up(shop, int(per_minute))
        if patient:
            await use_up(shop, 1)  # half a second later
        else:
            with pytest.raises(ResourceExhaustedError) as raised:
                await use_up(shop, 1)
            assert raised.value.reason == "TOO_MANY_CALLS"
