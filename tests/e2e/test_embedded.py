"""`contentshop up` as a real process, and everything a person does with it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sqlite3
import stat
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cli.datafolder import DataFolder
from contentshop.assets.v1 import assets_pb2, assets_pb2_grpc, backend_pb2
from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, enqueue_pb2_grpc, job_pb2
from libs.common.auth import mint_user_token
from libs.common.clock import SystemClock
from libs.common.grpc_client import open_channel
from tests.support.eventually import eventually
from tests.support.house import ROOT, House, contentshop, house, spawn

PHOTOS = ROOT / "examples" / "photos"


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("house") / "data") as running:
        yield running


def _metadata(data: Path, team: str = "demo") -> tuple[tuple[str, str], ...]:
    token = mint_user_token(
        secret=DataFolder(data).read_secrets().auth,
        issuer="contentshop",
        team=team,
        scopes=["team"],
        clock=SystemClock(),
    )
    return (("authorization", f"Bearer {token}"),)


async def test_upload_generate_watch_and_download_by_the_command(
    shop: House, tmp_path: Path
) -> None:
    uploaded = (await shop.run("upload", PHOTOS / "mug.jpg", "--json")).json()["files"][0]
    assert (uploaded["content_type"], uploaded["width"]) == ("image/jpeg", 1200)

    ran = await shop.run(
        *("generate", "--product-image", str(uploaded["id"])),
        *("--background-image", str(PHOTOS / "background.jpg"), "--variations", "3"),
        *("--aspect-ratio", "4:5", "--out", str(tmp_path / "made"), "--json"),
    )
    assert ran.code == 0, ran
    assert ran.err == ""
    made = ran.json()
    job = made["job"]
    assert (job["state"], job["images_done"]) == ("SUCCEEDED", 3)
    assert job["product_image_file_ids"] == [uploaded["id"]]
    images = [tmp_path / "made" / f"image-{n}.png" for n in (1, 2, 3)]
    zipped = tmp_path / "made" / job["archive"]["filename"]
    with zipfile.ZipFile(zipped) as archive:
        for image in images:
            assert archive.read(image.name) == image.read_bytes()
    assert len(made["files"]) == 4
    assert {file["path"] for file in made["files"]} == {str(p) for p in [*images, zipped]}

    watched = await shop.run("watch", str(job["id"]), "--json")
    lines = [json.loads(line) for line in watched.out.splitlines()]
    sequences = [line["event"]["sequence"] for line in lines if line["event"]]
    assert sequences == list(range(1, len(sequences) + 1))
    assert lines[-1]["final"]
    assert [line["final"] for line in lines[:-1]] == [False] * (len(lines) - 1)

    again = await shop.run("download", str(job["id"]), "--out", tmp_path / "again", "--json")
    assert again.code == 0
    for image in images:
        assert (tmp_path / "again" / image.name).read_bytes() == image.read_bytes()


async def test_an_edit_of_a_made_image(shop: House, tmp_path: Path) -> None:
    made = await shop.run(
        *("generate", "--product-image", PHOTOS / "shirt.jpg", "--out", tmp_path / "a", "--json")
    )
    file_id = made.json()["job"]["images"][0]["file_id"]
    edited = await shop.run(
        *("edit", str(file_id), "--instruction", "warmer light", "--out", tmp_path / "b", "--json")
    )
    assert edited.code == 0, edited
    assert edited.json()["job"]["type"] == "IMAGE_EDIT"
    with Image.open(tmp_path / "b" / "image-1.png") as image:
        image.verify()
    assert not list((tmp_path / "b").glob("*.zip"))


async def test_people_see_lines_tables_and_no_escape_codes(shop: House, tmp_path: Path) -> None:
    ran = await shop.run(
        *("generate", "--product-image", PHOTOS / "mug.jpg", "-n", "2", "--out", tmp_path)
    )
    assert ran.code == 0
    assert "image 2 of 2 done" in ran.err
    assert "zip ready" in ran.err
    assert "succeeded in" in ran.err
    assert str(tmp_path / "image-1.png") in ran.out
    listed = await shop.run("jobs", "--limit", "1")
    assert "succeeded" in listed.out
    shown = await shop.run("job", listed.out.splitlines()[1].split()[0])
    assert "apparel.catalog.v1 on image_generation.fast" in shown.out
    assert "\x1b" not in ran.out + ran.err + listed.out + listed.err + shown.out


async def test_the_same_request_id_is_the_same_job(shop: House) -> None:
    ask = ("generate", "--product-image", PHOTOS / "mug.jpg", "--request-id", "once", "--no-wait")
    first, second = [(await shop.run(*ask, "--json")).json()["job"]["id"] for _ in range(2)]
    assert first == second
    other = await shop.run(*ask, "--variations", "2", "--json")
    assert other.code == 6
    assert other.json()["error"]["reason"] == "IDEMPOTENCY_KEY_REUSED"


async def test_the_whole_way_by_raw_grpc(shop: House) -> None:
    photo = (PHOTOS / "sneaker.jpg").read_bytes()
    metadata = _metadata(shop.data)

    def parts() -> Iterator[assets_pb2.UploadFileRequest]:
        header = assets_pb2.UploadHeader(filename="sneaker.jpg", size_bytes=len(photo))
        yield assets_pb2.UploadFileRequest(header=header)
        yield assets_pb2.UploadFileRequest(chunk=photo)

    async with open_channel(shop.ready["assets"]) as to_assets:
        assets = assets_pb2_grpc.AssetsServiceStub(to_assets)
        file = (await assets.UploadFile(parts(), metadata=metadata)).file
        async with open_channel(shop.ready["enqueue"]) as to_enqueue:
            enqueue = enqueue_pb2_grpc.EnqueueServiceStub(to_enqueue)
            request = enqueue_pb2.EnqueueGenerationRequest(
                product_images=[backend_pb2.ImageRef(upload_url=file.upload_url)],
                number_of_variations=2,
            )
            job = (await enqueue.EnqueueGeneration(request, metadata=metadata)).job
            watch = enqueue.WatchJob(
                enqueue_pb2.WatchJobRequest(job_id=job.id), metadata=metadata, timeout=100
            )
            last = [message async for message in watch][-1]
        assert last.final
        assert last.job.state == job_pb2.JOB_STATE_SUCCEEDED
        assert last.job.archive.state == job_pb2.ARCHIVE_STATE_READY
        for image in last.job.images:
            download = assets.DownloadFile(
                assets_pb2.DownloadFileRequest(file_id=image.file_id), metadata=metadata
            )
            got = [part async for part in download]
            facts, data = got[0].file, b"".join(part.chunk for part in got[1:])
            assert hashlib.sha256(data).hexdigest() == facts.sha256
            assert (facts.job_id, facts.image_index) == (job.id, image.index)


async def test_another_team_sees_nothing(shop: House) -> None:
    made = await shop.run("generate", "--product-image", PHOTOS / "mug.jpg", "--no-wait", "--json")
    job_id = str(made.json()["job"]["id"])
    assert (await shop.run("job", job_id, "--team", "rivals")).code == 3
    listed = await shop.run("jobs", "--team", "rivals", "--json")
    assert listed.json()["jobs"] == []


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["job", "999999"], 3, "job not found"),
        (["watch", "999999"], 3, "job not found"),
        (["download", "999999"], 3, "job not found"),
        (["cancel", "999999"], 3, "job not found"),
        (["upload", "pyproject.toml"], 2, "not a PNG, JPEG or WebP"),
        (["upload", "no-such-file.png"], 2, "no such file"),
        (["generate", "--product-image", "999999"], 2, "--product-image 1: is not found"),
        (["generate", "--product-image", "1", "--aspect-ratio", "7:7"], 2, "--aspect-ratio: must"),
        (["generate", "--product-image", "1", "--workflow", "no"], 2, "--workflow: is unknown"),
        (["edit", "1", "--instruction", ""], 2, "--instruction"),
        (["generate", *["--product-image", "1"] * 5], 2, "needs 1 to 4 images"),
        (["jobs", "--team", "not a team"], 2, "is not a team's name"),
    ],
)
async def test_wrong_inputs_are_told_in_a_sentence(
    shop: House, args: list[str], code: int, text: str
) -> None:
    ran = await contentshop(*args, "--data", shop.data, cwd=ROOT)
    assert ran.code == code, ran
    assert text in ran.err
    assert ran.err.startswith("contentshop: ")
    assert "Traceback" not in ran.err
    as_json = await contentshop(*args, "--data", shop.data, "--json", cwd=ROOT)
    assert as_json.json()["error"]["exit_code"] == code


async def test_a_job_that_ended_cannot_be_canceled(shop: House, tmp_path: Path) -> None:
    made = await shop.run(
        "generate", "--product-image", PHOTOS / "mug.jpg", "--out", tmp_path, "--json"
    )
    ran = await shop.run("cancel", str(made.json()["job"]["id"]))
    assert (ran.code, "the job has ended" in ran.err) == (6, True)


async def test_explicit_addresses_and_tokens(shop: House) -> None:
    token = (await shop.run("token", "--ttl", "5m")).out.strip()
    known = {
        "CONTENTSHOP_ENQUEUE": shop.ready["enqueue"],
        "CONTENTSHOP_DATA": "/nowhere",
    }
    assert (await contentshop("jobs", env={**known, "CONTENTSHOP_TOKEN": token})).code == 0
    for wrong in ({}, {"CONTENTSHOP_TOKEN": "x"}):
        assert (await contentshop("jobs", env={**known, **wrong})).code == 4
    ops = (await shop.run("token", "--scope", "ops")).out.strip()
    assert (await contentshop("jobs", env={**known, "CONTENTSHOP_TOKEN": ops})).code == 4
    nobody = {"CONTENTSHOP_ENQUEUE": "127.0.0.1:1", "CONTENTSHOP_TOKEN": token}
    away = await contentshop("jobs", env=nobody)
    assert (away.code, "does not answer" in away.err) == (5, True)


async def test_a_second_up_on_the_same_folder_is_refused(shop: House) -> None:
    second = await contentshop("up", "--data", shop.data, "--port-base", "0")
    assert second.code == 6
    assert f"another contentshop (process {shop.process.pid}) is already running" in second.err
    assert (await shop.run("jobs")).code == 0


async def test_a_taken_port_is_told(shop: House, tmp_path: Path) -> None:
    port = shop.ready["enqueue"].rpartition(":")[2]
    ran = await contentshop("up", "--data", tmp_path, "--port-base", port)
    assert ran.code == 6
    assert ran.err.startswith(f"contentshop: enqueue cannot listen on 127.0.0.1:{port}")


def test_secrets_are_private(shop: House) -> None:
    folder = shop.data / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("auth", "service"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


async def test_without_a_house_it_says_how_to_start_one(tmp_path: Path) -> None:
    ran = await contentshop("jobs", "--data", tmp_path)
    assert ran.code == 5
    assert f"contentshop up --data {tmp_path}" in ran.err


async def test_a_stop_is_graceful_and_the_jobs_are_there_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with house(data) as first:
        made = await first.run(
            "generate", "--product-image", PHOTOS / "mug.jpg", "--out", tmp_path / "o", "--json"
        )
        assert await first.stop() == 0
    assert not (data / "endpoints.json").exists()
    assert (await contentshop("jobs", "--data", data)).code == 5
    async with house(data) as second:
        listed = (await second.run("jobs", "--json")).json()["jobs"]
        assert [job["id"] for job in listed] == [made.json()["job"]["id"]]


async def test_a_canceled_job_ends_its_watcher_with_code_1(tmp_path: Path) -> None:
    slow = {"OFFLINE_DELAY_SECONDS": "100"}
    async with house(tmp_path / "data", env=slow) as running:
        ask = ("generate", "--product-image", PHOTOS / "mug.jpg", "--no-wait", "--json")
        job_id = str((await running.run(*ask)).json()["job"]["id"])
        watching = asyncio.get_running_loop().create_task(running.run("watch", job_id))
        await _until_event(running, job_id, "STARTED")
        canceled = await running.run("cancel", job_id)
        assert canceled.code == 0
        watched = await watching
        assert watched.code == 1
        assert "canceled" in watched.err
        assert (await running.run("download", job_id)).code == 1


async def _until_event(running: House, job_id: str, kind: str) -> None:
    async def seen() -> bool:
        job = (await running.run("job", job_id, "--json")).json()["job"]
        return bool(job["start_time"]) if kind == "STARTED" else job["state"] == kind

    await eventually(seen, timeout_seconds=60)


async def test_killed_in_the_middle_of_a_job_and_started_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    one_by_one = {"WORKER_IMAGES_AT_ONCE": "1", "OFFLINE_DELAY_SECONDS": "0.3"}
    async with house(data, env=one_by_one) as first:
        made = await first.run(
            *("generate", "--product-image", PHOTOS / "mug.jpg", "-n", "5", "--no-wait", "--json")
        )
        job_id = made.json()["job"]["id"]
        watcher = await spawn("watch", str(job_id), "--data", data, "--json")
        assert watcher.stdout is not None
        lines: list[dict[str, Any]] = []
        while not any(_kind(line) == "IMAGE_DONE" for line in lines):
            async with asyncio.timeout(60):
                lines.append(json.loads(await watcher.stdout.readline()))
        await first.kill()

    async with house(data, env=one_by_one) as second:
        async with asyncio.timeout(120):
            rest = (await watcher.stdout.read()).decode().splitlines()
            assert await watcher.wait() == 0
        lines += [json.loads(line) for line in rest]
        events = [line["event"] for line in lines if line["event"]]
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
        done = sorted(event["image_index"] for event in events if event["kind"] == "IMAGE_DONE")
        assert done == [1, 2, 3, 4, 5]
        assert lines[-1]["final"]
        job = lines[-1]["job"]
        assert job["state"] == "SUCCEEDED"
        assert job["archive"]["state"] == "READY"
        await _exactly_once(second, job)


async def test_killed_while_a_batch_ends_and_started_again(tmp_path: Path) -> None:
    """The broker dies with the house: what assets had not heard yet is said to it again."""
    data = tmp_path / "data"
    settings = {"OFFLINE_DELAY_SECONDS": "60", "CONFIRM_SECONDS": "1"}
    async with house(data, env=settings) as first:
        uploaded = (await first.run("upload", PHOTOS / "mug.jpg", "--json")).json()["files"][0]
        file_id = uploaded["id"]
        async with open_channel(first.ready["enqueue"]) as channel:
            stub = enqueue_pb2_grpc.EnqueueServiceStub(channel)
            product = batch_pb2.BatchVariant(product_images=[backend_pb2.ImageRef(file_id=file_id)])
            request = enqueue_pb2.EnqueueBatchRequest(name="spring", variants=[product] * 100)
            batch = (await stub.EnqueueBatch(request, metadata=_metadata(data))).batch
            await eventually(lambda: _lasting_pins(data) == 100)
            cancel = enqueue_pb2.CancelBatchRequest(batch_id=batch.id)
            await stub.CancelBatch(cancel, metadata=_metadata(data))
        await eventually(lambda: _lasting_pins(data) < 100)
        await first.kill()

    async with (
        house(data, env=settings) as second,
        open_channel(second.ready["assets"]) as channel,
    ):
        await eventually(lambda: _lasting_pins(data) == 0)
        delete = assets_pb2.DeleteFileRequest(file_id=file_id)
        assets = assets_pb2_grpc.AssetsServiceStub(channel)
        await assets.DeleteFile(delete, metadata=_metadata(data))


def _lasting_pins(data: Path) -> int:
    """How often an input is kept for a job that, as assets knows, has not ended."""
    with closing(sqlite3.connect(f"file:{data / 'assets.sqlite'}?mode=ro", uri=True)) as assets:
        row = assets.execute("SELECT count(*) FROM pins WHERE expires_at IS NULL").fetchone()
    return int(row[0])


def _kind(line: dict[str, Any]) -> str:
    return str(line["event"]["kind"]) if line["event"] else ""


async def _exactly_once(running: House, job: dict[str, Any]) -> None:
    """assets shows one file per image, the ones the job names; and one zip."""
    async with open_channel(running.ready["assets"]) as channel:
        stub = assets_pb2_grpc.AssetsServiceStub(channel)

        async def listed() -> list[assets_pb2.File]:
            request = assets_pb2.ListFilesRequest(job_id=job["id"])
            answer = await stub.ListFiles(request, metadata=_metadata(running.data))
            files = list(answer.files)
            assert len(files) == 6
            return files

        files = await eventually(listed)
    images = {f.image_index: f.id for f in files if f.kind == assets_pb2.FILE_KIND_GENERATED}
    assert images == {image["index"]: image["file_id"] for image in job["images"]}


async def test_the_demo_twice(tmp_path: Path) -> None:
    jobs = []
    for _ in range(2):
        ran = await contentshop("demo", "--out", tmp_path / "demo", "--json")
        assert ran.code == 0, ran
        shown = ran.json()
        jobs.append(shown["job"]["id"])
        names = sorted(path.name for path in (tmp_path / "demo").iterdir())
        zipped = shown["job"]["archive"]["filename"]
        assert names == [".data", zipped, *(f"image-{n}.png" for n in (1, 2, 3, 4))]
    assert jobs == [1, 2]
    assert not (tmp_path / "demo" / ".data" / "endpoints.json").exists()


async def _slow_demo(out: Path) -> asyncio.subprocess.Process:
    """A demo whose images are on their way."""
    process = await spawn("demo", "--out", out, env={"OFFLINE_DELAY_SECONDS": "60"})
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b"started" not in (line := await process.stderr.readline()):
            assert line
    return process


async def _until_stopped(out: Path) -> None:
    log = out / ".data" / "up.log"
    await eventually(lambda: "contentshop has stopped" in log.read_text(), timeout_seconds=50)
    assert not (out / ".data" / "endpoints.json").exists()


@pytest.fixture
def with_ctrl_c() -> Iterator[None]:
    """Processes begin as in a terminal, also where a shell runs the tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("with_ctrl_c")
async def test_ctrl_c_stops_the_demo_and_all_of_it(tmp_path: Path) -> None:
    process = await _slow_demo(tmp_path)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(50):
        assert await process.wait() == 130
    await _until_stopped(tmp_path)


async def test_a_killed_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await _slow_demo(tmp_path)
    process.kill()
    await process.wait()
    await _until_stopped(tmp_path)
