"""What is left behind is told by its name, and no longer once it is gone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.home import Belongings, Session, comes_home


@contextmanager
def a_thread() -> Iterator[str]:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="forgotten")
    thread.start()
    yield "thread: forgotten"
    over.set()
    thread.join()


@contextmanager
def a_child() -> Iterator[str]:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        yield f"child: {child.pid} "  # and its command, once it is more than our own fork


@contextmanager
def a_descriptor() -> Iterator[str]:
    reading, writing = os.pipe()
    yield f"descriptor: {writing} → {Path(f'/proc/self/fd/{writing}').readlink()}"
    os.close(reading)
    os.close(writing)


@contextmanager
def a_temporary_file() -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="spool-") as file:
        yield f"temporary file: {Path(file.name).name}"


@pytest.mark.parametrize("take", [a_thread, a_child, a_descriptor, a_temporary_file])
async def test_what_is_left_is_named(take: type, tmp_path: Path) -> None:
    before = Belongings(Session(), tmp_path)
    with take() as name:
        left = Belongings(Session(), tmp_path).beyond(before)
        assert any(each.startswith(name) for each in left), (name, left)
    await comes_home(before, Session(), tmp_path, houses=False)


async def test_a_task_is_named(tmp_path: Path) -> None:
    before = Belongings(Session(), tmp_path)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(over.wait(), name="forgotten")
        left = Belongings(Session(), tmp_path).beyond(before)
        name = "task: forgotten <coroutine object Event.wait"
        assert any(each.startswith(name) for each in left), left
        over.set()
    await comes_home(before, Session(), tmp_path, houses=False)


async def test_an_unfinished_blob_is_named(tmp_path: Path) -> None:
    before = Belongings(Session(), tmp_path)
    put = tmp_path / "test_x0" / "blobs" / ".tmp" / "1"
    put.parent.mkdir(parents=True)
    put.touch()
    # Among others: gRPC may open a socket at any moment.
    assert f"unfinished blob: {put}" in Belongings(Session(), tmp_path).beyond(before)
