"""What must hold of files and zips: rows beside blobs beside what enqueue says of its jobs."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from tests.simulation.generator import mark_in
from tests.simulation.house import ASSETS_SWEEP_SECONDS, House
from tests.simulation.promises import Row, rows_of
from tests.support.invariants import FINAL


def miscounted(house: House) -> Iterator[str]:
    """One line per team whose stored bytes are not those of its files; at every instant."""
    said = dict(house.look("SELECT team, stored_bytes FROM storage", "assets"))
    real = dict(
        house.look(
            "SELECT team, sum(size_bytes) FROM files WHERE deleted_at IS NULL GROUP BY team",
            "assets",
        )
    )
    for team in said.keys() | real.keys():
        if said.get(team, 0) != real.get(team, 0):
            yield f"{team} stores {real.get(team, 0)} bytes, {said.get(team, 0)} are counted"


def kept_at_rest(house: House) -> Iterator[str]:
    """One line per promise of assets, the packager and watches that does not hold at rest."""
    yield from miscounted(house)
    jobs = rows_of(house.readers["enqueue"], "jobs")
    images = rows_of(house.readers["enqueue"], "images")
    files = {row["id"]: row for row in rows_of(house.readers["assets"], "files")}
    yield from _outputs(house, images, files)
    yield from _files(house, files)
    yield from _inputs(house, jobs)
    archives = {row["job_id"]: row for row in rows_of(house.readers["packager"], "archives")}
    done: dict[int, list[Row]] = defaultdict(list)
    for image in sorted(images, key=lambda one: (one["job_id"], one["image_index"])):
        if image["state"] == "DONE":
            done[image["job_id"]].append(image)
    for job in jobs:
        archive = archives.pop(job["id"], None)
        for broken in _zipped(house, job, done[job["id"]], archive, files):
            yield f"job {job['id']}, {job['state']}: {broken}"
    last = {job["id"]: job["last_sequence"] for job in jobs}
    for watcher in house.watchers:
        yield from watcher.broken(last[watcher.job_id])
    for archive in archives.values():
        yield f"the packager has a zip of {archive['job_id']}, which is no job"


def _outputs(house: House, images: list[Row], files: dict[int, Row]) -> Iterator[str]:
    """A slot that is DONE is one visible file with the image that was made for it; and no other."""
    wanted = set()
    for image in images:
        name = f"job {image['job_id']}, image {image['image_index']}"
        if image["state"] != "DONE":
            continue
        wanted.add(image["file_id"])
        file = files.get(image["file_id"])
        if file is None or file["deleted_at"] is not None:
            yield f"{name}: file {image['file_id']} is not there"
            continue
        slot = (image["job_id"], image["image_index"])
        if (file["kind"], file["job_id"], file["image_index"]) != ("GENERATED", *slot):
            yield f"{name}: file {file['id']} is of {file['job_id']}, {file['image_index']}"
        if file["sha256"] != image["sha256"]:
            yield f"{name}: enqueue has another SHA-256"
        if file["recorded_at"] is None:
            yield f"{name}: file {file['id']} is not visible"
        data = _bytes_of(house, file)
        if data and house.generator.made.get(mark_in(data)) != slot:
            yield f"{name}: its file shows what was made for another"
    for file in files.values():
        if file["kind"] == "GENERATED" and file["id"] not in wanted:
            yield f"file {file['id']} of job {file['job_id']} was made and never recorded"


def _files(house: House, files: dict[int, Row]) -> Iterator[str]:
    """Every file has its bytes, and there are no other bytes."""
    for file in files.values():
        name = f"file {file['id']}, {file['kind']}"
        data = _bytes_of(house, file)
        if file["deleted_at"] is not None:
            yield f"{name}: was deleted long ago, its row is here still"
        elif data is None:
            yield f"{name}: has no blob"
        elif (len(data), _sha256(data)) != (file["size_bytes"], file["sha256"]):
            yield f"{name}: its blob is another"
    keys = Counter(file["blob_key"] for file in files.values())
    for key in house.blobs.kept.keys() - keys.keys():
        yield f"blob {key}: is no file's"


def _inputs(house: House, jobs: list[Row]) -> Iterator[str]:
    """Nothing is pinned or set aside for what is over, and no job missed an input it had."""
    over = {job["pin_token"] for job in jobs if job["state"] in FINAL}
    for token, lasting in house.look("SELECT pin_token, expires_at IS NULL FROM pins", "assets"):
        if token in over or lasting:
            yield f"an input is still pinned under {token}"
    before = int(house.clock.now().timestamp() * 1_000_000) - 3 * ASSETS_SWEEP_SECONDS * 1_000_000
    for team, size, until in house.look(
        "SELECT team, size_bytes, expires_at FROM reservations", "assets"
    ):
        if until < before:
            yield f"{team} has {size} bytes set aside by nobody"
    for job in jobs:
        if job["error_reason"] == "BAD_INPUT":
            yield f"job {job['id']} missed an input: {job['error_message']}"


def _zipped(
    house: House, job: Row, done: list[Row], archive: Row | None, files: dict[int, Row]
) -> Iterator[str]:
    """The zip of a job, as enqueue, the packager and assets have it, and what is in it."""
    wanted = job["state"] == "SUCCEEDED" and job["number_of_variations"] > 1
    zips = [
        file["id"]
        for file in files.values()
        if file["kind"] == "ARCHIVE" and file["job_id"] == job["id"]
    ]
    if not wanted:
        if archive or zips or job["archive_state"] != "NONE":
            yield f"has a zip that nobody wanted: {job['archive_state']}, files {zips}"
        return
    if archive is None or archive["state"] != job["archive_state"]:
        yield f"its zip is {job['archive_state']}, the packager's {archive and archive['state']}"
        return
    if archive["state"] == "FAILED":
        house.generator.calls["zip FAILED"] += 1
        if zips:
            yield f"its zip FAILED, and is the files {zips}"
        return
    facts = [job[f"archive_{name}"] for name in ("file_id", "filename", "size_bytes")]
    if facts != [archive[name] for name in ("file_id", "filename", "size_bytes")]:
        yield f"its zip is {facts}, the packager's another"
    if zips != [archive["file_id"]]:
        yield f"its zips are the files {zips}, the packager's is {archive['file_id']}"
        return
    house.generator.calls["zip READY"] += 1
    yield from _opened(house, _bytes_of(house, files[zips[0]]) or b"", job, done, files)


def _opened(
    house: House, data: bytes, job: Row, done: list[Row], files: dict[int, Row]
) -> Iterator[str]:
    """Exactly the job's images, in order, and the manifest."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [f"image-{n}.png" for n in range(1, len(done) + 1)]
        if archive.namelist() != [*names, "manifest.json"]:
            yield f"its zip holds {archive.namelist()}"
            return
        held = [archive.read(name) for name in names]
        manifest = json.loads(archive.read("manifest.json"))
    if held != [_bytes_of(house, files[image["file_id"]]) for image in done]:
        yield "its zip holds other bytes than its images"
    told = [(image["index"], image["file_id"]) for image in manifest["images"]]
    if manifest["job_id"] != str(job["id"]) or told != [
        (image["image_index"], str(image["file_id"])) for image in done
    ]:
        yield f"its zip's manifest tells {manifest}"


def _bytes_of(house: House, file: dict[str, Any]) -> bytes | None:
    kept = house.blobs.kept.get(file["blob_key"])
    return None if kept is None else kept[0]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
