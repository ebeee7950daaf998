"""A house copied while it works, lost, brought back: old things are there, new ones are new."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cli.backing_up import BLOBS, DATABASES, MARK, copy_blobs, copy_database
from tests.support.eventually import eventually
from tests.support.house import ROOT, House, contentshop, house

PHOTO = ROOT / "examples" / "photos" / "mug.jpg"
SLOW = {"OFFLINE_DELAY_SECONDS": "0.7", "WORKER_IMAGES_AT_ONCE": "1"}


async def _made(shop: House, out: Path) -> Any:
    ran = await shop.run("generate", "--product-image", PHOTO, "-n", "2", "--out", out, "--json")
    assert ran.code == 0, ran
    return ran.json()["job"]


async def _job(shop: House, job_id: int) -> Any:
    ran = await shop.run("job", str(job_id), "--json")
    assert ran.code == 0, ran
    return ran.json()["job"]


async def _copy_in_the_middle(shop: House, out: Path, copy: Path) -> tuple[Any, Any]:
    """A job that has ended, and one that runs while the house is copied."""
    granted = await shop.run("ops", "grant", "demo", "100", "--json")
    assert granted.code == 0, granted
    done = await _made(shop, out / "done")
    asked = await shop.run(
        *("generate", "--product-image", PHOTO, "-n", "6", "--no-wait", "--json")
    )
    live = asked.json()["job"]

    async def some() -> bool:
        return int((await _job(shop, live["id"]))["images_done"]) >= 1

    await eventually(some, timeout_seconds=60, what="the first image of six")
    copied = await shop.run("backup", copy, "--json")
    assert copied.code == 0, copied
    assert copied.json()["files_without_bytes"] == []
    return done, live


async def test_a_copy_of_a_working_house_comes_back_whole(tmp_path: Path) -> None:
    copy, back = tmp_path / "copy", tmp_path / "back"
    async with house(tmp_path / "data", env=SLOW) as shop:
        done, live = await _copy_in_the_middle(shop, tmp_path, copy)
        lost = await _made(shop, tmp_path / "lost")
        taken = await contentshop("restore", copy, "--data", shop.data, "--json")
        assert taken.code == 6
        assert taken.json()["error"]["reason"] == "DATA_FOLDER_IN_USE"
        await shop.kill()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    assert {path.name for path in copy.iterdir()} == {*DATABASES, BLOBS, MARK}

    restored = await contentshop("restore", copy, "--data", back)
    assert restored.code == 0, restored

    async with house(back) as shop:
        saved = await shop.run("download", str(done["id"]), "--out", tmp_path / "again", "--json")
        assert saved.code == 0, saved
        for name in ("image-1.png", "image-2.png", done["archive"]["filename"]):
            old, new = (tmp_path / folder / name for folder in ("done", "again"))
            assert old.read_bytes() == new.read_bytes()
        # What ran goes on and ends, with every image there.
        ended = await shop.run("watch", str(live["id"]), "--json")
        assert ended.code == 0, ended
        assert (await _job(shop, live["id"]))["images_done"] == 6
        whole = await shop.run("download", str(live["id"]), "--out", tmp_path / "live", "--json")
        assert len(whole.json()["files"]) == 7
        # What came after the copy is gone, and nothing new is taken for it.
        assert (await shop.run("job", str(lost["id"]))).code == 3
        new = await _made(shop, tmp_path / "new")
        old_files = [image["file_id"] for job in (done, live, lost) for image in job["images"]]
        assert new["id"] > 10**15 > lost["id"]
        assert min(image["file_id"] for image in new["images"]) > 10**15 > max(old_files)
        checked, account = await asyncio.gather(
            shop.run("ops", "credits-check"), shop.run("credits", "--json")
        )
        assert checked.code == 0, checked
        left = account.json()["credits"]
        assert (left["captured"], left["held"], left["available"]) == (10, 0, 90)


async def test_what_is_no_copy_or_half_a_house_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    half = tmp_path / "half"
    half.mkdir()
    (half / "restoring").touch()
    nothing, no_copy, cut_short = await asyncio.gather(
        contentshop("backup", tmp_path / "copy", "--data", tmp_path / "empty", "--json"),
        contentshop("restore", tmp_path / "empty", "--data", tmp_path / "new", "--json"),
        contentshop("up", "--data", half, "--port-base", "0", "--json"),
    )
    found = [ran.json()["error"]["reason"] for ran in (nothing, no_copy, cut_short)]
    assert found == ["NO_HOUSE", "NOT_A_BACKUP", "HALF_RESTORED"]
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "new").exists()


def test_a_copy_of_a_database_holds_all_that_was_committed_and_nothing_else(
    tmp_path: Path,
) -> None:
    source, copy = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    with closing(sqlite3.connect(source, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (n INTEGER)")
        writer.execute("INSERT INTO t VALUES (1)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")
        copy_database(source, copy)
        writer.execute("COMMIT")
    assert not list(tmp_path.glob("b.sqlite-*"))
    with closing(sqlite3.connect(copy)) as reader:
        assert reader.execute("SELECT n FROM t").fetchall() == [(1,)]
    with pytest.raises(sqlite3.OperationalError):
        copy_database(tmp_path / "none.sqlite", tmp_path / "c.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


def test_blobs_are_copied_once_and_temporary_files_never(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "team" / "x").mkdir(parents=True)
    (source / ".tmp").mkdir()
    (source / ".tmp" / "half").write_text("ha")
    (source / "team" / "x" / "one").write_text("1")
    assert copy_blobs(source, target).blobs == 1
    (source / "team" / "x" / "two").write_text("22")
    second = copy_blobs(source, target)
    assert (second.blobs, second.size_bytes) == (1, 2)
    assert (target / "team" / "x" / "two").read_text() == "22"
    assert not (target / ".tmp").exists()
    (source / ".tmp" / "half").unlink()
