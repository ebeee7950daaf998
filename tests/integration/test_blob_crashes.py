"""A process that dies with half a blob on the disk: nobody ever sees it, and it is tidied up."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from libs.common.blobs_disk import TEMP_FOLDER
from libs.common.blobs_file import FileBlobStore
from libs.common.ids import SystemIds

KEY = "uploads/half"
SIZE = 1024 * 1024
PUT = f"""
import asyncio, sys
from pathlib import Path
from libs.common.blobs_file import FileBlobStore
from libs.common.crash import CrashPoints
from libs.common.ids import SystemIds

async def main():
    store = FileBlobStore(Path(sys.argv[1]), SystemIds(), crash=CrashPoints("A2"))
    await store.start()
    await store.put({KEY!r}, [bytes({SIZE})], "image/png")

asyncio.run(main())
"""


async def test_half_a_blob_is_no_blob(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUT, str(root), cwd=Path(__file__).parents[2]
    )
    assert await process.wait() == -signal.SIGKILL
    [temp] = (root / TEMP_FOLDER).iterdir()
    assert temp.stat().st_size == SIZE // 2
    store = FileBlobStore(root, SystemIds())
    await store.start()
    try:
        assert await store.stat(KEY) is None
        assert [blob async for blob in store.list("")] == []
        assert not temp.exists()
        await store.put(KEY, [bytes(SIZE)], "image/png")
        found = await store.stat(KEY)
        assert found is not None
        assert found.size == SIZE
    finally:
        await store.close()
