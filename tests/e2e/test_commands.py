"""Batches, credits, folders, moodboards and operators, as typed at a terminal."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.assets.domain import raw_key
from tests.support.assets_house import blob_files
from tests.support.eventually import eventually
from tests.support.house import ROOT, House, house

PHOTOS = ROOT / "examples" / "photos"


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("house") / "data") as running:
        yield running


@pytest.fixture
def spring(tmp_path: Path) -> Path:
    """A batch file of three variants; two of them show the same photo under two names."""
    for name in ("mug.jpg", "shirt.jpg"):
        (tmp_path / name).write_bytes((PHOTOS / name).read_bytes())
    (tmp_path / "cup.jpg").write_bytes((PHOTOS / "mug.jpg").read_bytes())
    path = tmp_path / "spring.yaml"
    path.write_text(
        "name: Spring\n"
        "settings:\n"
        "  number_of_variations: 2\n"
        "  quality: fast\n"
        "  input: {aspect_ratio: 4:5}\n"
        "variants:\n"
        "  - {variant: mug, product_images: [mug.jpg]}\n"
        "  - {variant: cup, product: '12', product_images: [cup.jpg]}\n"
        "  - {variant: shirt, product_images: [shirt.jpg]}\n"
    )
    return path


async def test_a_batch_from_its_file_to_its_zip(shop: House, spring: Path, tmp_path: Path) -> None:
    made = await shop.run("batch", "create", spring, "--watch", "--json")
    assert made.code == 0, made
    batch = made.json()["batch"]
    assert (batch["state"], batch["name"]) == ("SUCCEEDED", "Spring")
    assert (batch["jobs"]["succeeded"], batch["images"]["done"]) == (3, 6)

    shown = (await shop.run("batch", "show", str(batch["id"]), "--json")).json()
    jobs = sorted(shown["jobs"], key=lambda job: job["variant_index"])
    assert [job["variant"] for job in jobs] == ["mug", "cup", "shirt"]
    assert jobs[0]["input"]["aspect_ratio"] == "4:5"
    # The same bytes were uploaded once.
    assert jobs[0]["product_image_file_ids"] == jobs[1]["product_image_file_ids"]

    watched = await shop.run("batch", "watch", str(batch["id"]), "--json")
    assert watched.code == 0, watched
    lines = [json.loads(line) for line in watched.out.splitlines()]
    assert [line["final"] for line in lines] == [False] * (len(lines) - 1) + [True]
    kinds = [line["event"]["kind"] for line in lines if line["event"]]
    assert kinds.count("IMAGE_DONE") == 6
    middle = lines[5]["cursor"]
    rest = await shop.run("batch", "watch", str(batch["id"]), "--after", middle, "--json")
    assert rest.code == 0, rest
    assert [json.loads(line)["event"] for line in rest.out.splitlines()] == [
        line["event"] for line in lines[6:]
    ]

    saved = await shop.run(
        "batch", "download", str(batch["id"]), "--out", tmp_path / "zips", "--json"
    )
    assert saved.code == 0, saved
    with zipfile.ZipFile(saved.json()["file"]["path"]) as archive:
        assert archive.testzip() is None
        assert sum(name.endswith(".png") for name in archive.namelist()) == 6

    batch_id = str(batch["id"])
    listed, table, canceled, retried = await asyncio.gather(
        shop.run("batch", "list"),
        shop.run("batch", "show", batch_id),
        shop.run("batch", "cancel", batch_id),
        shop.run("batch", "retry", batch_id),
    )
    for shown_table in (listed, table):
        assert "succeeded" in shown_table.out
        assert "\x1b" not in shown_table.out + shown_table.err
    assert (canceled.code, retried.code) == (6, 6)

    async def filed() -> bool:
        folders = (await shop.run("folders", "list", "--json")).json()["folders"]
        return {folder["name"] for folder in folders} >= {"mug", "cup", "shirt", "Spring"}

    await eventually(filed)


async def test_people_see_lines_of_a_batch(shop: House, spring: Path) -> None:
    ran = await shop.run("batch", "create", spring, "--watch")
    assert ran.code == 0, ran
    assert "shirt: image 2 of 2 done" in ran.err
    assert "6 images" in ran.err
    assert "\x1b" not in ran.out + ran.err


async def test_an_estimate_keeps_nothing(shop: House, spring: Path) -> None:
    before = await _uploads(shop, "frugal")
    ran = await shop.run("batch", "create", spring, "--estimate", "--json", "--team", "frugal")
    assert ran.code == 0, ran
    found = ran.json()["estimate"]
    assert (found["jobs"], found["images"], found["enough_credits"]) == (3, 6, True)
    assert await _uploads(shop, "frugal") == before == 0
    assert (await shop.run("batch", "list", "--json", "--team", "frugal")).json()["batches"] == []


async def test_what_a_refused_request_uploaded_is_deleted(shop: House, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    variants = [
        {"product_images": [str(PHOTOS / "mug.jpg")]},
        {"product_images": [999_999_999]},
    ]
    bad.write_text(json.dumps({"variants": variants}))
    for field, args in (
        ("variants[1].product_images[0]", ("batch", "create", bad)),
        (
            "--product-image 2",
            ("generate", "--product-image", PHOTOS / "mug.jpg", "--product-image", "999999999"),
        ),
    ):
        ran = await shop.run(*args, "--json", "--team", "refused")
        assert ran.code == 2, ran
        assert field in [detail["field"] for detail in ran.json()["error"]["details"]]
        assert await _uploads(shop, "refused") == 0


async def test_a_damaged_image_costs_nobody_the_others(shop: House, tmp_path: Path) -> None:
    made = await shop.run(
        *("generate", "--product-image", PHOTOS / "mug.jpg", "-n", "2", "--json"),
        *("--out", tmp_path / "made", "--team", "unlucky"),
    )
    job = str(made.json()["job"]["id"])
    wanted = (tmp_path / "made" / "image-1.png").read_bytes()
    # Nobody deletes anything of this team; other teams' files may go while we look.
    folder = (shop.data / "blobs" / raw_key("unlucky", "any")).parents[1]
    (blob,) = [path for path in blob_files(folder) if path.read_bytes() == wanted]
    blob.chmod(0o600)
    blob.write_bytes(wanted[:-1] + b"x")
    ran = await shop.run("download", job, "--out", tmp_path / "b", "--team", "unlucky", "--json")
    assert ran.code == 1, ran
    assert ran.json()["missing"] == {"1": "DATA_LOSS"}
    saved = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert saved == [made.json()["job"]["archive"]["filename"], "image-2.png"]


async def _uploads(shop: House, team: str) -> int:
    """Bytes that a team stores."""
    stored = (await shop.run("storage", "--json", "--team", team)).json()["storage"]
    return int(stored["stored_bytes"])


async def test_what_a_team_asks(shop: House) -> None:
    made = await shop.run(
        "generate", "--product-image", PHOTOS / "mug.jpg", "--no-wait", "--json", "--team", "askers"
    )
    job = str(made.json()["job"]["id"])
    team = ("--team", "askers")
    assert (await shop.run("watch", job, *team)).code == 0
    explained, rated, unrated, approved, undecided, retried = await asyncio.gather(
        shop.run("explain", job, *team),
        shop.run("rate", job, "1", "5", *team),
        shop.run("rate", job, "2", "5", *team),
        shop.run("review", job, "--approve", *team),
        shop.run("review", job, *team),
        shop.run("retry", job, *team, "--json"),
    )
    assert "ended" in explained.out
    assert (rated.code, unrated.code, approved.code, undecided.code) == (0, 3, 0, 2)
    assert retried.json()["error"]["reason"] == "JOB_NOT_RETRYABLE"
    shown = (await shop.run("job", job, "--json", *team)).json()["job"]
    assert (shown["review"]["state"], shown["images"][0]["rating"]) == ("APPROVED", 5)
    used, workflows = await asyncio.gather(
        shop.run("usage", "--json", *team), shop.run("workflows")
    )
    assert used.json()["usage"]["images"] == 1
    for word in ("apparel.catalog.v1", "image.edit.v1", "aspect_ratio"):
        assert word in workflows.out


async def test_folders_and_moodboards(shop: House) -> None:
    folder = (await shop.run("folders", "create", "Autumn", "--json")).json()["folder"]
    assert (await shop.run("folders", "show", str(folder["id"]))).code == 0
    assert (await shop.run("folders", "create", "Autumn")).code == 6
    board = (
        await shop.run(
            *("moodboard", "create", "Calm", "--positive", PHOTOS / "background.jpg"),
            *("--style", "soft light", "--json"),
        )
    ).json()["moodboard"]
    shown = await shop.run("moodboard", "show", str(board["id"]))
    assert "soft light" in shown.out
    listed = (await shop.run("moodboard", "list", "--json")).json()["moodboards"]
    assert [one["id"] for one in listed] == [board["id"]]
    assert (await shop.run("moodboard", "delete", str(board["id"]))).code == 0
    assert (await shop.run("moodboard", "show", str(board["id"]))).code == 3


async def test_what_operators_ask_and_set(shop: House) -> None:
    granted = await shop.run("ops", "grant", "payers", "100", "--note", "hello", "--json")
    assert granted.json()["credits"]["available"] == 100
    paying = ("--team", "payers")
    assert "100 available" in (await shop.run("credits", *paying)).out
    entries = (await shop.run("credits", "--entries", "--json", *paying)).json()["entries"]
    assert [(e["kind"], e["amount"], e["note"]) for e in entries] == [("GRANT", 100, "hello")]
    assert (await shop.run("ops", "credits-check")).code == 0

    lane = "image_generation.high"
    assert (await shop.run("ops", "pause", lane, "--reason", "new keys")).code == 0
    queues = (await shop.run("ops", "queues", "--json")).json()["queues"]
    assert [one["lane"] for one in queues["lanes"] if one["paused"]] == [lane]
    resumed, nowhere, limits, model, dead, requeued = await asyncio.gather(
        shop.run("ops", "resume", lane),
        shop.run("ops", "pause", "nowhere"),
        shop.run("ops", "limits", "payers", "--live-jobs", "7", "--json"),
        shop.run("ops", "model", "offline", "600"),
        shop.run("ops", "dead", "--json"),
        shop.run("ops", "requeue", "999999"),
    )
    assert (resumed.code, nowhere.code, model.code, requeued.code) == (0, 2, 0, 3)
    assert limits.json()["enqueue"]["max_live_jobs"] == 7
    assert dead.json() == {"jobs": [], "more": False}
    mistyped = await shop.run("ops", "model", "ofline", "600")
    assert mistyped.code == 0
    assert "warning: no worker has called a model 'ofline' so far; known are " in mistyped.err
    assert "offline" in mistyped.err
    tables = await asyncio.gather(
        *(shop.run("ops", command) for command in ("queues", "metrics", "dead", "audit"))
    )
    for table in tables:
        assert (table.code, "\x1b" in table.out) == (0, False)
    audit = tables[-1].out
    assert "grant credits" in audit
    assert "pause lane" in audit


async def test_a_batch_that_waits_is_canceled(shop: House, spring: Path) -> None:
    lane, team = "image_generation.fast", ("--team", "waiters")
    assert (await shop.run("ops", "pause", lane, "--reason", "new keys")).code == 0
    try:
        made = await shop.run("batch", "create", spring, "--request-id", "once", *team)
        batch_id = made.out.strip()
        assert batch_id.isdigit(), made
        # Asking again with the same key is the same batch; its uploads are not deleted.
        again = await shop.run("batch", "create", spring, "--request-id", "once", *team)
        assert again.out == made.out
        shown = (await shop.run("batch", "show", batch_id, "--json", *team)).json()
        job_id = str(shown["batch"]["job_ids"][0])
        explained = (await shop.run("explain", job_id, "--json", *team)).json()["explanation"]
        assert explained["reason"] == "LANE_PAUSED"
        early = await shop.run(
            "batch", "download", batch_id, "--out", spring.parent, "--json", *team
        )
        assert (early.code, early.json()["error"]["reason"]) == (6, "BATCH_ACTIVE")
        canceled = await shop.run("batch", "cancel", batch_id, "--json", *team)
        assert canceled.json()["batch"]["state"] == "CANCELED"
        watched = await shop.run("batch", "watch", batch_id, *team)
        assert watched.code == 1
        assert "3 canceled" in watched.err
    finally:
        assert (await shop.run("ops", "resume", lane)).code == 0
