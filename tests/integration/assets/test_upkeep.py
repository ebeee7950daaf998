"""What keeps the house in order: messages, schema, row-level security, readiness."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contentshop.assets.v1 import assets_pb2
from libs.common.broker import JOB_ENDED, JOB_ENQUEUED
from libs.common.migrations import drift
from services.assets import tables
from services.assets.app import build
from services.assets.domain import Upload
from services.assets.store import pending
from tests.support.assets_house import (
    PNG,
    AssetsHouse,
    opened,
    sha256,
)
from tests.support.databases import sqlite_database
from tests.support.eventually import eventually


async def rename_table(house: AssetsHouse, old: str, new: str) -> None:
    async with house.db.duty() as tx:
        await tx.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))


async def test_news_waits_for_the_database(tmp_path: Path) -> None:
    house = AssetsHouse(sqlite_database("assets", tmp_path), (tmp_path / "blobs").as_uri())
    async with opened(house):
        await rename_table(house, "job_endings", "away")
        async with asyncio.TaskGroup() as tasks:
            heard = tasks.create_task(house.ended("red", 5))
            await eventually(lambda: house.in_hand() == 1)
            await rename_table(house, "away", "job_endings")
            await heard
        assert house.broker.dead_letters("assets.jobs") == ()
        assert await house.count(tables.job_endings) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xffgarbage",
        b"",
        b"\x08\x02\x10\x05\x1a\x03red",  # schema version 2
        b"\x08\x01\x1a\x03red",  # no job
        b"\x08\x01\x10\x05\x1a\x05a,b,c",  # no team
        b"\x08\x01\x10\x05\x1a\x03red\x28\x02",  # ended, and yet RUNNING
    ],
)
async def test_poison_goes_to_the_dead_letters(house: AssetsHouse, body: bytes) -> None:
    for number, key in enumerate((JOB_ENQUEUED, JOB_ENDED), start=1):
        await house.say(key, body)
        assert len(house.broker.dead_letters("assets.jobs")) == number
    assert await house.count(tables.job_endings) == 0


async def test_the_schema_is_that_of_the_tables(house: AssetsHouse) -> None:
    assert drift(house.urls.owner, tables.metadata) == []


@pytest.mark.real
@pytest.mark.parametrize("make_house", ["postgres"], indirect=True)
async def test_the_database_itself_keeps_teams_apart(house: AssetsHouse) -> None:
    red, backend = house.team("red"), house.backend()
    file = await red.upload(request_id="key-1", sha256=sha256(PNG))
    await backend.resolve("red", file.id, pin_token="pin-1")
    await backend.store("red", 5, 1)
    content = assets_pb2.MoodboardContent(name="autumn", positive_file_ids=[file.id])
    await red.call("CreateMoodboard", assets_pb2.CreateMoodboardRequest(content=content))
    variants = [assets_pb2.Variant(id="v")]
    await red.call("PutVariants", assets_pb2.PutVariantsRequest(variants=variants))
    await house.ended("red", 6, outputs=[(await backend.store("red", 6, 1)).image.file_id])
    async with house.db.transaction("red") as tx:  # as while an upload is under way
        values = {"token": "t", "team": "red", "size_bytes": 1, "expires_at": tx.after(60.0)}
        await tx.execute(sa.insert(tables.reservations).values(values))
        await pending.add(tx, "red", "t", Upload("a.png", "", 1, ""), 60.0)
    for table in (one for one in tables.metadata.sorted_tables if "team" in one.c):
        query = sa.select(sa.func.count()).select_from(table)
        async with house.db.read("red") as tx:
            assert await tx.scalar(query) > 0
        for teams in (["blue"], [], ["blue", "green"], ["Red"]):
            async with house.db.read(*teams) as tx:
                assert await tx.scalar(query) == 0
    async with house.db.transaction("blue") as tx:
        for table in (tables.files, tables.storage, tables.reservations):
            changed = await tx.execute(sa.update(table).values(team="blue"))
            assert changed.rowcount == 0
        with pytest.raises(sa.exc.ProgrammingError):
            await tx.execute(
                sa.insert(tables.job_endings).values(team="red", job_id=99, ended_at=None)
            )
    assert (await red.get(file.id)).id == file.id


async def test_it_is_ready_without_a_broker(tmp_path: Path) -> None:
    house = AssetsHouse(sqlite_database("assets", tmp_path), (tmp_path / "blobs").as_uri())
    house.app = build(replace(house.settings, broker_url="amqp://127.0.0.1:1"))
    async with opened(house):
        stub = health_pb2_grpc.HealthStub(house.channel())
        request = health_pb2.HealthCheckRequest(service="contentshop.assets.v1.AssetsService")

        async def serving() -> bool:
            answer = await stub.Check(request)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        assert await serving()
        await house.team("red").upload()
        (tmp_path / "blobs").rename(tmp_path / "away")

        async def away() -> bool:
            return not await serving()

        await eventually(away)
