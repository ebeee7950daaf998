"""One blob on a disk: written whole or not at all, read in chunks. Blocking; run it in a thread."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from libs.common.blobs import CHUNK_BYTES, BlobStat
from libs.common.blobs_keys import bad_key, check_key, is_key
from libs.common.errors import (
    InternalError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)

TEMP_FOLDER = ".tmp"
COALESCE_BYTES = 256 * 1024  # smaller parts are gathered, so that a write is worth its call
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_TRIES = 8  # of a race with the sweep


class AbandonedError(Exception):
    """The caller has gone; nobody reads this."""


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turns what the operating system says into what our callers switch on."""
    try:
        yield
    except (IsADirectoryError, NotADirectoryError) as error:
        raise bad_key() from error  # one key is the folder of another
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhaustedError(
                "The blob store has no room.", reason="STORAGE_FULL", quota_subject="storage"
            ) from error
        raise UnavailableError("The blob store cannot be used now.") from error


def real_root(root: Path) -> Path:
    """The folder with every symlink on the way resolved, so that keys can be compared to it."""
    return Path(os.path.realpath(root))


def path_of(root: Path, key: str) -> Path:
    """The file of a key. No symlink below the root is followed: such a blob does not exist."""
    path = root / check_key(key)
    if os.path.realpath(path.parent) != str(path.parent):
        raise NotFoundError("blob")
    return path


def prepare(root: Path) -> None:
    """Makes the folders and removes the temporary files of writers that are dead."""
    temp = root / TEMP_FOLDER
    temp.mkdir(mode=0o750, parents=True, exist_ok=True)
    for path in temp.iterdir():
        _sweep(path)


def _sweep(path: Path) -> None:
    # A living writer holds a lock on its file; the kernel drops it with the process.
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(handle)


def write_whole(
    root: Path,
    key: str,
    parts: Iterable[bytes | memoryview],
    *,
    size: int | None,
    token: Callable[[], str],
    stop: threading.Event,
) -> None:
    """Stores parts under key, durable when it returns; on any error nothing of it remains.

    Args:
        root: a real folder (`real_root`) that `prepare` has seen.
        key: where; what is there already is replaced in one step.
        parts: each is used up before the next is asked for.
        size: what the parts must sum to; None takes any.
        token: makes unguessable names.
        stop: set by a caller that has gone; raises AbandonedError.
    """
    target = path_of(root, key)
    handle, temp = _open_temp(root / TEMP_FOLDER, token)
    try:
        _pour(handle, parts, size, stop)
        os.fsync(handle)
        _check_wanted(stop)
        _publish(root, temp, target)
    except BaseException:
        with suppress(FileNotFoundError):
            temp.unlink()
        raise
    finally:
        os.close(handle)


def _open_temp(folder: Path, token: Callable[[], str]) -> tuple[int, Path]:
    for _ in range(_TRIES):
        path = folder / token()
        handle = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640
        )
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink == 1:  # a sweep may have come between open and lock
                return handle, path
        os.close(handle)
    raise UnavailableError("The blob store cannot be used now.")


def _check_wanted(stop: threading.Event) -> None:
    if stop.is_set():
        raise AbandonedError


def _pour(
    handle: int, parts: Iterable[bytes | memoryview], size: int | None, stop: threading.Event
) -> None:
    gathered = bytearray()
    total = 0
    for part in parts:
        _check_wanted(stop)
        view = memoryview(part).cast("B")
        total += len(view)
        if len(view) + len(gathered) < COALESCE_BYTES:
            gathered += view
            continue
        _write_all(handle, [memoryview(gathered), view] if gathered else [view])
        gathered = bytearray()
    if gathered:
        _write_all(handle, [memoryview(gathered)])
    if size is not None and total != size:
        raise InternalError("A blob had another size than announced.", reason="BLOB_SIZE")


def _write_all(handle: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(handle, views)
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if views:
            views[0] = views[0][written:]


def _publish(root: Path, temp: Path, target: Path) -> None:
    with _folders_kept(root):
        _make_folders(root, target.parent)
        temp.rename(target)
        _fsync_folder(target.parent)


@contextmanager
def _folders_kept(root: Path) -> Iterator[None]:
    """While inside, no process prunes a folder: many may be inside, pruning is alone or not at all.

    The lock is the kernel's, on the root itself, so that it ends with a process that is killed.
    """
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _prune(root: Path, folder: Path) -> None:
    """Removes folders that are empty, upwards; leaves them where somebody is publishing."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        while folder != root:
            folder.rmdir()
            folder = folder.parent
    finally:
        os.close(handle)


def _make_folders(root: Path, folder: Path) -> None:
    if folder == root or folder.is_dir():
        return
    _make_folders(root, folder.parent)
    try:
        folder.mkdir(mode=0o750)
    except FileExistsError:
        if not folder.is_dir():
            raise bad_key() from None  # one key is the folder of another
    _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    # Without it a power cut may forget the name of a file whose bytes are safe.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_parts(path: Path, block_bytes: int = 1024 * 1024) -> Iterator[bytes]:
    """A local file's bytes in blocks."""
    with path.open("rb", buffering=0) as file:
        while block := file.read(block_bytes):
            yield block


class DiskReader:
    """An open blob on disk."""

    def __init__(self, root: Path, key: str, chunk_bytes: int = CHUNK_BYTES) -> None:
        """Opens it; NotFoundError when there is no such blob."""
        self._chunk_bytes = chunk_bytes
        self._lock = threading.Lock()  # a close must not hand the descriptor to somebody else
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self._handle = os.open(path_of(root, key), flags)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("blob") from None
        except OSError as error:
            if error.errno == errno.ELOOP:  # a symlink
                raise NotFoundError("blob") from None
            raise
        self._open = True
        facts = os.fstat(self._handle)
        if not stat.S_ISREG(facts.st_mode):
            self.close()
            raise NotFoundError("blob")
        self.size = self._left = facts.st_size

    def read(self) -> bytes:
        """The next chunk; empty at the end. A file that became shorter is an error."""
        with self._lock:
            if not self._open:
                raise AbandonedError
            chunk = os.read(self._handle, min(self._chunk_bytes, self._left))
        if not chunk and self._left:
            raise UnavailableError("A blob ended too early.", reason="SHORT_READ")
        self._left -= len(chunk)
        return chunk

    def interrupt(self) -> None:
        """A read from disk ends by itself."""

    def close(self) -> None:
        """Closes the file; a second time is fine."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._handle)


def stat_blob(root: Path, key: str) -> BlobStat | None:
    """Size and time, or None when there is no such blob."""
    try:
        facts = path_of(root, key).lstat()
    except (FileNotFoundError, NotADirectoryError, NotFoundError):
        return None
    return _blob_stat(key, facts) if stat.S_ISREG(facts.st_mode) else None


def same_content(root: Path, key: str, parts: Iterable[bytes | memoryview]) -> bool:
    """Whether the stored blob is exactly these parts."""
    reader = DiskReader(root, key)
    try:
        stored = b""
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                stored = stored or reader.read()
                step = min(len(stored), len(view))
                if not step or stored[:step] != view[:step]:
                    return False
                stored, view = stored[step:], view[step:]
        return not (stored or reader.read())
    finally:
        reader.close()


def delete_blob(root: Path, key: str) -> None:
    """Removes a blob and the folders it leaves empty; a missing one is fine.

    Not fsynced: a blob that comes back after a power cut is only deleted again.
    """
    try:
        path = path_of(root, key)
        path.unlink()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, NotFoundError):
        return
    with suppress(OSError):  # not empty, gone already, or somebody publishes now
        _prune(root, path.parent)


def scan(root: Path, prefix: str) -> Iterator[BlobStat]:
    """All blobs whose key starts with prefix; what comes and goes meanwhile may be missing."""
    folders = [prefix.rpartition("/")[0]]
    while folders:
        folder = folders.pop()
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(root / folder) as entries:
            for entry in entries:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if not is_key(key) or not (key.startswith(prefix) or prefix.startswith(key + "/")):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(key)
                elif entry.is_file(follow_symlinks=False) and key.startswith(prefix):
                    with suppress(FileNotFoundError):
                        yield _blob_stat(key, entry.stat(follow_symlinks=False))


def _blob_stat(key: str, facts: os.stat_result) -> BlobStat:
    return BlobStat(key, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))
