"""Writers and removers of the same folders do not get in each other's way."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from libs.common import blobs_disk


def test_putting_beside_pruning_never_fails(tmp_path: Path) -> None:
    root = blobs_disk.real_root(tmp_path)
    blobs_disk.prepare(root)
    names, stop = itertools.count(), threading.Event()

    def put_and_remove(worker: int) -> None:
        for turn in range(60):
            key = f"team/uploads/{worker}-{turn}"
            blobs_disk.write_whole(
                root, key, [b"x"], size=1, token=lambda: f"t{next(names)}", stop=stop
            )
            blobs_disk.delete_blob(root, key)  # prunes the folders that are empty by then

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(put_and_remove, range(6)))
