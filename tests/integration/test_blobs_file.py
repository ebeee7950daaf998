"""What the embedded blob store must survive: odd URLs, links, dead writers, full disks."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from libs.common import blobs_disk
from libs.common.blobs_file import FileBlobStore
from libs.common.blobs_urls import FileBlobUrls
from libs.common.errors import (
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from tests.support.blob_pairs import (
    IDS,
    MIB,
    Pair,
    block,
    listed,
    opened,
    read_back,
    refused,
    temp_files,
)


async def test_file_urls_outside_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root2").mkdir()
    async with opened(FileBlobStore(root, IDS), FileBlobUrls(root, IDS)) as pair:
        await pair.store.put("a/b", [b"x"], "image/png")
        base = root.as_uri()
        for url in (
            "",
            "a/b",
            str(root / "a/b"),
            base,
            f"{base}/",
            f"{base}/../secret",
            f"{base}/a/../../secret",
            f"{base}/a/%2e%2e/%2e%2e/secret",
            f"{base}/%2e%2e/secret",
            f"{base}//a/b",
            f"{base}/a/b?x=1",
            f"{base}/a/b#x",
            f"{base}/.tmp/x",
            f"{base}2/x",
            f"{tmp_path.as_uri()}/secret",
            base.replace("file:///", "file://host/") + "/a/b",
            base.replace("file:///", "file://localhost/") + "/a/b",
            base.replace("file://", "FILE://") + "/a/b",
            f"{base}/a\\b",
            f"{base}/a/b\0",
            "file:///etc/passwd",
            "http://127.0.0.1/a/b",
        ):
            await refused(pair.urls, url)


async def test_symlinks_below_the_root_lead_nowhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    async with opened(FileBlobStore(root, IDS), FileBlobUrls(root, IDS)) as pair:
        (root / "dir").symlink_to(outside)
        (root / "file").symlink_to(outside / "secret")
        for key in ("dir/secret", "file"):
            with pytest.raises(NotFoundError):
                await read_back(pair, key)
            with pytest.raises(NotFoundError):
                await pair.urls.read_all(pair.store.read_url(key), 10)
            assert await pair.store.stat(key) is None
            await pair.store.delete([key])
        with pytest.raises(NotFoundError):
            await pair.urls.write(pair.store.write_url("dir/new"), 1, [b"x"])
        assert await listed(pair.store, "") == {}
        assert {each.name for each in outside.iterdir()} == {"secret"}
        await pair.urls.write(pair.store.write_url("file"), 1, [b"x"])  # replaces the link itself
        assert (outside / "secret").read_text() == "secret"


async def test_a_root_that_is_itself_a_symlink_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    async with opened(FileBlobStore(link, IDS), FileBlobUrls(link, IDS)) as pair:
        await pair.store.put("a/b", [b"x"], "image/png")
        assert await pair.urls.read_all(pair.store.read_url("a/b"), 1) == b"x"
        assert pair.store.public_read_url("a/b", "b.png", 60) is None
        assert pair.store.public_write_url("a/c", 1, 60) is None


async def test_a_key_below_another_key_is_a_bad_key(tmp_path: Path) -> None:
    async with opened(FileBlobStore(tmp_path, IDS), FileBlobUrls(tmp_path, IDS)) as pair:
        await pair.store.put("a/b", [b"x"], "image/png")
        for key in ("a", "a/b/c"):
            with pytest.raises(InvalidArgumentError):
                await pair.store.put(key, [b"x"], "image/png")
            with pytest.raises(NotFoundError):
                await read_back(pair, key)
        assert temp_files(tmp_path) == []


WRITER = """
import sys, threading
from pathlib import Path
from libs.common import blobs_disk
def parts():
    yield b"x" * 1_000_000
    print("half way", flush=True)
    sys.stdin.read()
blobs_disk.write_whole(Path(sys.argv[1]), "t/1", parts(), size=None,
                       token=lambda: "dead", stop=threading.Event())
"""


async def test_a_writer_killed_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    root = blobs_disk.real_root(tmp_path / "root")
    store = FileBlobStore(root, IDS)
    async with opened(store, FileBlobUrls(root, IDS)) as pair:
        writer = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WRITER,
            str(root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert writer.stdout is not None
            assert await writer.stdout.readline() == b"half way\n"
            assert await pair.store.stat("t/1") is None
            assert await listed(pair.store, "") == {}
            await store.start()  # the writer lives: its file stays
            assert temp_files(root) == ["dead"]
        finally:
            writer.kill()
            await writer.wait()
        assert await pair.store.stat("t/1") is None
        assert await listed(pair.store, "") == {}
        await store.start()
        assert temp_files(root) == []
        await pair.store.put("t/1", [b"x"], "image/png")


@asynccontextmanager
async def small_disk(folder: Path) -> AsyncIterator[Callable[[str], Any]]:
    """A 4 MiB tmpfs at folder; the value remounts it with options."""
    await asyncio.to_thread(folder.mkdir)
    mounted = await asyncio.to_thread(_mount, folder, "size=4m")
    if mounted.returncode:
        pytest.skip(f"no tmpfs mount: {mounted.stderr.decode().strip() or 'not allowed'}")
    try:
        yield lambda options: asyncio.to_thread(_mount, folder, f"remount,{options}")
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(folder)], check=True)


def _mount(folder: Path, options: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess([], 1, b"", b"there is no mount command")


async def test_a_full_or_read_only_disk(tmp_path: Path) -> None:
    async with small_disk(tmp_path / "disk") as remount:
        root = tmp_path / "disk" / "root"
        async with opened(FileBlobStore(root, IDS), FileBlobUrls(root, IDS)) as pair:
            await pair.store.put("t/fits", [block(MIB)], "image/png")
            await storage_full(pair, "t/full")
            await pair.store.put("t/fits2", [block(MIB)], "image/png")  # the temporary file is gone
            await remount("ro")
            await storage_full(pair, "t/ro")
            with pytest.raises(UnavailableError):
                await pair.store.ping()
            assert len(await read_back(pair, "t/fits")) == MIB
            await remount("rw")
            await pair.store.ping()
            await pair.store.delete(["t/fits"])
            await pair.store.put("t/fits3", [block(MIB)], "image/png")


async def storage_full(pair: Pair, key: str) -> None:
    parts = (block(MIB) for _ in range(8))
    with pytest.raises(ResourceExhaustedError) as put:
        await pair.store.put(key, [block(8 * MIB)], "image/png")
    with pytest.raises(ResourceExhaustedError) as write:
        await pair.urls.write(pair.store.write_url(key), 8 * MIB, parts)
    assert put.value.reason == write.value.reason == "STORAGE_FULL"
    assert await pair.store.stat(key) is None


async def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """As above where nobody may mount: here no file of ours may pass two mebibytes."""
    root = tmp_path / "root"
    async with opened(FileBlobStore(root, IDS), FileBlobUrls(root, IDS)) as pair:
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, unlimited[1]))
        try:
            await storage_full(pair, "t/full")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert temp_files(root) == []
        await pair.store.put("t/fits", [block(8 * MIB)], "image/png")
