"""How much a team may store: reserved before the bytes, exact after every end of an upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from contentshop.assets.v1 import assets_pb2, assets_pb2_grpc
from libs.common.errors import ResourceExhaustedError
from services.assets import tables
from tests.fixtures import images
from tests.support.assets_house import (
    PNG,
    AssetsHouse,
    Backend,
    MakeHouse,
    Team,
    all_of,
    nothing_in,
    reason_of,
    sha256,
)
from tests.support.eventually import eventually

Part = assets_pb2.UploadFileRequest


def other(number: int) -> bytes:
    """A picture of its own, of any size."""
    return images.encoded("PNG", images.picture(20 + number, 20))


async def stored(team: Team) -> int:
    return (await team.storage()).stored_bytes


async def real(house: AssetsHouse, team: str) -> int:
    """Bytes of the team's files, by their rows."""
    total = sa.func.coalesce(sa.func.sum(tables.files.c.size_bytes), 0)
    where = (tables.files.c.team == team, tables.files.c.deleted_at.is_(None))
    async with house.db.read_all() as tx:
        return int(await tx.scalar(sa.select(total).where(*where)))


async def test_it_counts_what_is_stored(house: AssetsHouse, red: Team, backend: Backend) -> None:
    assert await red.storage() == assets_pb2.GetStorageResponse(max_stored_bytes=50 * 1024**3)
    upload = await red.upload()
    made = (await backend.store("red", 5, 1)).image
    dropped = (await backend.store("red", 5, 2, other(1))).image
    assert await stored(red) == upload.size_bytes + made.size_bytes + dropped.size_bytes
    await house.ended("red", 5, outputs=[made.file_id])
    assert await stored(red) == upload.size_bytes + made.size_bytes
    await red.delete(upload.id)
    assert await stored(red) == made.size_bytes == await real(house, "red")
    await red.delete(made.file_id)
    assert await stored(red) == 0
    assert await house.count(tables.reservations) == 0
    assert await stored(house.team("blue")) == 0


async def test_an_archive_counts_once(house: AssetsHouse, red: Team) -> None:
    data = b"a zip, as far as assets knows"
    await house.archive("red", 5, data)
    assert await stored(red) == len(data)


async def test_too_much_is_refused_before_its_bytes(make_house: MakeHouse) -> None:
    house = await make_house(max_stored_bytes=len(PNG) + 10)
    red = house.team("red")

    async def parts() -> AsyncIterator[Part]:
        yield Part(header=assets_pb2.UploadHeader(filename="a.png", size_bytes=len(PNG) + 11))
        await asyncio.Event().wait()  # not a byte is needed

    with pytest.raises(ResourceExhaustedError) as caught:
        await red.send(parts())
    error = caught.value
    assert (error.reason, error.quota_subject) == (
        "STORAGE_QUOTA",
        "stored bytes of the team",
    )
    assert error.metadata == {"storedBytes": "0", "maxStoredBytes": str(len(PNG) + 10)}
    first = await red.upload(request_id="one", sha256=sha256(PNG))
    assert await reason_of(red.upload()) == "STORAGE_QUOTA"
    # A replay stores nothing; another team has its own.
    assert await red.upload(request_id="one", sha256=sha256(PNG)) == first
    await house.team("blue").upload()
    await red.delete(first.id)
    await red.upload()
    assert await house.count(tables.reservations) == 0


async def test_what_jobs_make_is_never_refused(make_house: MakeHouse) -> None:
    house = await make_house(max_stored_bytes=1)
    red, backend = house.team("red"), house.backend()
    made = (await backend.store("red", 5, 1)).image
    assert await red.storage() == assets_pb2.GetStorageResponse(
        stored_bytes=made.size_bytes, max_stored_bytes=1
    )
    assert await reason_of(red.upload()) == "STORAGE_QUOTA"


async def test_uploads_at_once_never_pass_the_limit(make_house: MakeHouse) -> None:
    pictures = [other(number) for number in range(8)]
    largest = max(len(data) for data in pictures)
    house = await make_house(max_stored_bytes=3 * largest)
    red = house.team("red")
    answers = await all_of(*(red.upload(data) for data in pictures))
    refused = [answer for answer in answers if isinstance(answer, ResourceExhaustedError)]
    assert len(pictures) - len(refused) >= 3
    assert {error.reason for error in refused} == {"STORAGE_QUOTA"}
    assert await stored(red) == await real(house, "red") <= 3 * largest
    assert await house.count(tables.reservations) == 0


async def test_a_failed_upload_gives_its_bytes_back(
    house: AssetsHouse, red: Team, blobs: Path
) -> None:
    assert await reason_of(red.upload(PNG[:-20])) == "IMAGE_CORRUPT"
    assert await reason_of(red.upload(size_bytes=len(PNG) + 1)) == "SIZE_MISMATCH"
    assert await reason_of(red.upload(sha256=sha256(b"other"))) == "CHECKSUM_MISMATCH"
    assert await stored(red) == await house.count(tables.reservations) == 0
    await nothing_in(blobs)


async def test_an_upload_under_way_counts_until_it_is_given_up(
    house: AssetsHouse, red: Team
) -> None:
    async def parts() -> AsyncIterator[Part]:
        yield Part(header=assets_pb2.UploadHeader(filename="a.png", size_bytes=1000))
        yield Part(chunk=PNG[:10])
        await asyncio.Event().wait()

    async def counted(number: int) -> bool:
        return await stored(red) == number

    call = red.stub.UploadFile(
        parts(), metadata=[("authorization", f"Bearer {house.team_token('red')}")]
    )
    await eventually(lambda: counted(1000))
    call.cancel()
    await eventually(lambda: counted(0))
    assert await house.count(tables.reservations) == 0


async def test_racing_uploads_with_one_request_id_count_once(house: AssetsHouse, red: Team) -> None:
    said: dict[str, Any] = {"request_id": "one", "sha256": sha256(PNG)}
    answers = await all_of(*(red.upload(**said) for _ in range(6)))
    assert len({answer.id for answer in answers}) == 1
    assert await stored(red) == answers[0].size_bytes
    assert await house.count(tables.reservations) == 0


async def test_a_dead_uploaders_reservation_runs_out(make_house: MakeHouse) -> None:
    house = await make_house(max_stored_bytes=len(PNG), sweep_seconds=60.0)
    red = house.team("red")
    async with house.db.duty() as tx:
        await tx.execute(
            sa.insert(tables.reservations).values(
                token="dead", team="red", size_bytes=1, expires_at=tx.after(60.0)
            )
        )
    assert await stored(red) == 1
    assert await reason_of(red.upload()) == "STORAGE_QUOTA"
    async with house.db.duty() as tx:
        await tx.execute(sa.update(tables.reservations).values(expires_at=tx.after(-1.0)))
    assert await stored(red) == 0  # exact, though nobody has cleaned up
    await red.upload()


async def test_the_duty_removes_what_has_run_out(house: AssetsHouse) -> None:
    async with house.db.duty() as tx:
        await tx.execute(
            sa.insert(tables.reservations),
            [
                {
                    "token": f"dead-{number}",
                    "team": "red",
                    "size_bytes": 1,
                    "expires_at": house.clock.now() + timedelta(hours=number - 1),
                }
                for number in (0, 2)
            ],
        )

    async def one_left() -> bool:
        return await house.count(tables.reservations) == 1

    await eventually(one_left)
    assert await stored(house.team("red")) == 1


async def test_a_difference_is_corrected(make_house: MakeHouse) -> None:
    house = await make_house(recount_seconds=0.1)
    teams = [house.team(f"team-{number}") for number in range(3)]
    sizes = [(await team.upload(other(n))).size_bytes for n, team in enumerate(teams)]
    async with house.db.duty() as tx:
        await tx.execute(
            sa.update(tables.storage)
            .where(tables.storage.c.team != "team-1")
            .values(stored_bytes=tables.storage.c.stored_bytes + 5)
        )

    async def corrected() -> bool:
        return [await stored(team) for team in teams] == sizes

    await eventually(corrected)


async def test_deleting_never_fails_for_a_wrong_count(house: AssetsHouse, red: Team) -> None:
    file = await red.upload()
    async with house.db.duty() as tx:
        await tx.execute(sa.update(tables.storage).values(stored_bytes=1))
    await red.delete(file.id)
    assert await stored(red) == 0


async def test_operators_set_limits(house: AssetsHouse, red: Team) -> None:
    default = house.settings.max_stored_bytes
    answer = await house.set_storage("red", max_stored_bytes=len(PNG) - 1)
    assert answer.max_stored_bytes == len(PNG) - 1
    assert await reason_of(red.upload()) == "STORAGE_QUOTA"
    answer = await house.set_storage("red", calls_per_minute=70)  # the other one stays
    assert (answer.max_stored_bytes, answer.calls_per_minute) == (len(PNG) - 1, 70)
    answer = await house.set_storage("red", max_stored_bytes=0)
    assert (answer.max_stored_bytes, answer.calls_per_minute) == (default, 70)
    await red.upload()
    assert (await house.team("blue").storage()).max_stored_bytes == default


@pytest.mark.parametrize(
    "said",
    [
        {"team": ""},
        {"team": "a,b"},
        {"team": "red", "max_stored_bytes": -1},
        {"team": "red", "calls_per_minute": -1},
        {"team": "red", "calls_per_minute": 1_000_001},
    ],
)
async def test_wrong_limits_are_refused(house: AssetsHouse, said: dict[str, Any]) -> None:
    assert await reason_of(house.set_storage(**said)) == "INVALID_ARGUMENT"
    assert await house.count(tables.storage) == 0


async def test_calls_have_a_limit_of_their_own(make_house: MakeHouse) -> None:
    house = await make_house(calls_per_minute_per_team=900_000, sweep_seconds=60.0)
    red = house.team("red")
    assert (await house.set_storage("red", calls_per_minute=3)).calls_per_minute == 3
    for _ in range(3):
        await red.files()
    with pytest.raises(ResourceExhaustedError) as caught:
        await red.files()
    assert caught.value.reason == "TOO_MANY_CALLS"
    assert caught.value.retry_after_seconds
    await house.team("blue").files()
    assert (await house.set_storage("red", calls_per_minute=0)).calls_per_minute == 900_000
    await red.files()


async def test_another_replica_hears_of_limits(make_house: MakeHouse) -> None:
    house = await make_house()
    red = house.team("red")
    async with house.db.duty() as tx:
        await tx.execute(
            sa.insert(tables.storage).values(team="red", stored_bytes=0, calls_per_minute=1)
        )

    async def limited() -> bool:
        try:
            await red.files()
        except ResourceExhaustedError as error:
            return error.reason == "TOO_MANY_CALLS"
        return False

    await eventually(limited)


async def test_only_operators_set_limits(red: Team) -> None:
    stub = assets_pb2_grpc.AssetsOpsServiceStub(red.client.channel)
    request = assets_pb2.SetTeamStorageRequest(team="red")
    call = red.client.unary(stub.SetTeamStorage, request, timeout_seconds=10.0)
    assert await reason_of(call) == "SCOPE_MISSING"
