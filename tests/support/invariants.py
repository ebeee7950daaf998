"""What must hold once everything has come to rest, read from the three databases and the bucket.

The promises of a job's life: places, gapless events, settled endings, one file per slot, no file
nobody asked for, inputs let go, zips that hold exactly their job's images, credits that add up, an
empty outbox.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.support.eventually import eventually
from tests.support.fleet import AUTH_SECRET, SERVICE_SECRET, Fleet

PLACES = 3  # of a team without a limit of its own
FINAL = {"SUCCEEDED", "FAILED", "CANCELED"}
AFTER_THE_END = {"ARCHIVE_READY", "ARCHIVE_FAILED"}
# A job that goes back to the queue for these keeps its team's place.
PLACE_KEPT = {"WORKER_LOST", "WORKER_DRAINED"}
REST_SECONDS = 90.0
# Faults of ours, whatever is killed around them; and what no log may show.
UNHEARD_OF = ("rpc.fault", "rpc.stray_cancel", "task.failed", "never retrieved", "job.fault")
SECRETS = ("X-Amz-Signature", "Bearer ", "eyJ", AUTH_SECRET, SERVICE_SECRET)

Row = dict[str, Any]


@dataclass(frozen=True)
class State:
    """All rows that matter, at about one moment."""

    teams: list[Row]
    jobs: list[Row]
    images: dict[int, list[Row]]
    events: dict[int, list[Row]]
    keys: list[Row]
    accounts: list[Row]
    entries: list[Row]
    outbox: int
    files: dict[int, Row]
    storage: list[Row]
    pins: list[Row]
    archives: dict[tuple[str, int], Row]
    blobs: dict[str, int]


async def check_invariants(fleet: Fleet, *, rest_seconds: float = REST_SECONDS) -> State:
    """Asserts every promise, once the system has come to rest; what it read last."""

    async def hold() -> State:
        state = await asyncio.to_thread(read_state, fleet)
        broken = list(broken_promises(state))
        assert not broken, "\n".join(broken)
        return state

    state = await eventually(hold, timeout_seconds=rest_seconds, what="the promises hold")
    check_logs(fleet)
    return state


def check_logs(fleet: Fleet) -> None:
    """Asserts that since the last look no process logged a fault of ours, or a secret."""
    for name, text in fleet.new_logs("check"):
        for line in text.splitlines():
            if '"db.commit"' in line:
                continue  # of a database that was killed; the one who waited for it was told
            found = [word for word in (*UNHEARD_OF, *SECRETS) if word in line]
            assert not found, f"{name} logged {found}: {line}"


def read_state(fleet: Fleet) -> State:
    """Reads the databases as superuser, and lists the bucket."""
    with psycopg.connect(fleet.dsn("enqueue"), row_factory=dict_row) as enqueue:
        jobs = _rows(enqueue, "SELECT * FROM jobs ORDER BY id")
        images = _by_job(_rows(enqueue, "SELECT * FROM images ORDER BY job_id, image_index"))
        events = _by_job(_rows(enqueue, "SELECT * FROM events ORDER BY job_id, sequence"))
        teams = _rows(enqueue, "SELECT * FROM teams")
        keys = _rows(enqueue, "SELECT * FROM idempotency_keys")
        accounts = _rows(enqueue, "SELECT * FROM accounts")
        entries = _rows(enqueue, "SELECT * FROM credit_entries ORDER BY id")
        outbox = _rows(enqueue, "SELECT count(*) AS n FROM outbox")[0]["n"]
    with psycopg.connect(fleet.dsn("assets"), row_factory=dict_row) as assets:
        files = _rows(assets, "SELECT * FROM files WHERE deleted_at IS NULL")
        storage = _rows(assets, "SELECT * FROM storage")
        pins = _rows(assets, "SELECT * FROM pins")
    with psycopg.connect(fleet.dsn("packager"), row_factory=dict_row) as packager:
        archives = _rows(packager, "SELECT * FROM archives")
    listed = fleet.servers.seaweed.client().list_objects(fleet.bucket, recursive=True)
    return State(
        teams=teams,
        jobs=jobs,
        images=images,
        events=events,
        keys=keys,
        accounts=accounts,
        entries=entries,
        outbox=outbox,
        files={row["id"]: row for row in files},
        storage=storage,
        pins=pins,
        archives={(row["team"], row["job_id"]): row for row in archives},
        blobs={str(blob.object_name): int(blob.size or 0) for blob in listed},
    )


def _rows(connection: psycopg.Connection[Row], query: Any) -> list[Row]:
    return connection.execute(query).fetchall()


def _by_job(rows: list[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["job_id"]].append(row)
    return found


def broken_promises(state: State) -> Iterator[str]:
    """One line per promise that does not hold."""
    yield from places_of_teams(state.teams, state.events)
    for job in state.jobs:
        images, events = state.images[job["id"]], state.events[job["id"]]
        name = f"job {job['id']} of {job['team']}, {job['state']}"
        if job["state"] not in FINAL:
            yield f"{name}: has not ended"
            continue
        yield from (f"{name}: {broken}" for broken in life_of_job(job, images, events))
        yield from (f"{name}: {broken}" for broken in _stored(state, job, images))
        yield from (f"{name}: {broken}" for broken in _zipped(state, job, images))
        yield from (f"{name}: {broken}" for broken in _charged(state, job, images))
    yield from _files(state)
    for account in state.accounts:
        name = f"account of {account['team']}"
        yield from (f"{name}: {broken}" for broken in _adds_up(state, account))
    if state.outbox:
        yield f"the outbox holds {state.outbox} rows"
    yield from _keys(state)


def _keys(state: State) -> Iterator[str]:
    """Every kept key names what it made."""
    jobs = {job["id"] for job in state.jobs}
    made = {
        "GrantCredits": {entry["id"] for entry in state.entries if entry["kind"] == "GRANT"},
        "EnqueueBatch": {job["batch_id"] for job in state.jobs},
    }
    for key in state.keys:
        if key["resource_id"] not in made.get(key["method"], jobs):
            yield f"key of nothing: {key}"


def life_of_job(job: Row, images: list[Row], events: list[Row]) -> Iterator[str]:
    """One line per promise that an ended job's events and slots do not keep."""
    yield from _events(job, events, images)
    yield from _settled(job, images)


def places_of_teams(teams: list[Row], events_of: dict[int, list[Row]]) -> Iterator[str]:
    """Live jobs per team at every instant, by the times of the events that take and give places."""
    limits = {row["team"]: row["max_live_jobs"] or PLACES for row in teams}
    live: dict[str, set[int]] = defaultdict(set)
    everything = [event for events in events_of.values() for event in events]
    for event in sorted(everything, key=lambda e: (e["at"], e["job_id"], e["sequence"])):
        holders = live[event["team"]]
        if event["kind"] == "ADMITTED":
            holders.add(event["job_id"])
        elif event["kind"] in FINAL or (
            event["kind"] == "REQUEUED" and event["error_reason"] not in PLACE_KEPT
        ):
            holders.discard(event["job_id"])
        if len(holders) > limits[event["team"]]:
            yield f"{event['team']} had {len(holders)} live jobs at {event['at']}: {holders}"


def _events(job: Row, events: list[Row], images: list[Row]) -> Iterator[str]:
    numbers = [event["sequence"] for event in events]
    if numbers != list(range(1, job["last_sequence"] + 1)):
        yield f"events {numbers} of {job['last_sequence']}"
    kinds = [event["kind"] for event in events]
    life = [kind for kind in kinds if kind not in AFTER_THE_END]
    if life[-1:] != [job["state"]] or sum(kind in FINAL for kind in kinds) != 1:
        yield f"ends with {kinds}"
    told = {e["image_index"]: e["file_id"] for e in events if e["kind"] == "IMAGE_DONE"}
    done = {image["image_index"]: image["file_id"] for image in images if image["state"] == "DONE"}
    if told != done or kinds.count("IMAGE_DONE") != len(done):
        yield f"IMAGE_DONE told of {told}, slots hold {done}"
    if kinds.count("IMAGE_FAILED") > job["images_failed"]:
        yield f"{kinds.count('IMAGE_FAILED')} IMAGE_FAILED, {job['images_failed']} failed images"


def _settled(job: Row, images: list[Row]) -> Iterator[str]:
    states = [image["state"] for image in images]
    if len(states) != job["number_of_variations"] or "PENDING" in states:
        yield f"images {states}"
    if (states.count("DONE"), states.count("FAILED")) != (job["images_done"], job["images_failed"]):
        yield f"counts {job['images_done']} done, {job['images_failed']} failed; images {states}"
    # A cancel may come between the last image and the end.
    whole = {"SUCCEEDED", "CANCELED"} if set(states) == {"DONE"} else {"FAILED", "CANCELED"}
    if job["state"] not in whole:
        yield f"images {states}"
    if job["finished_at"] is None or job["lease_expires_at"] is not None:
        yield "has no end, or still a lease"
    if (job["state"] == "FAILED") != (job["error_reason"] is not None):
        yield f"error {job['error_reason']}"


def _stored(state: State, job: Row, images: list[Row]) -> Iterator[str]:
    """Every DONE image is a live, visible file with the same facts."""
    for image in images:
        if image["state"] != "DONE":
            continue
        file = state.files.get(image["file_id"])
        if file is None:
            yield f"image {image['image_index']}: file {image['file_id']} is not there"
            continue
        slot = (file["team"], file["kind"], file["job_id"], file["image_index"], file["sha256"])
        wanted = (job["team"], "GENERATED", job["id"], image["image_index"], image["sha256"])
        if slot != wanted:
            yield f"image {image['image_index']} is {slot}, not {wanted}"
        if file["recorded_at"] is None:
            yield f"image {image['image_index']} is not visible"
    if any(pin["pin_token"] == job["pin_token"] for pin in state.pins):
        yield "its inputs are still pinned"


def _zipped(state: State, job: Row, images: list[Row]) -> Iterator[str]:
    wanted = job["state"] == "SUCCEEDED" and job["number_of_variations"] > 1
    if job["archive_state"] != ("READY" if wanted else "NONE"):
        yield f"its zip is {job['archive_state']}"
    archive = state.archives.get((job["team"], job["id"]))
    if not wanted:
        if archive is not None:
            yield "has a zip that nobody asked for"
        return
    if archive is None or archive["state"] != "READY":
        yield f"the packager has its zip as {archive and archive['state']}"
        return
    facts = [job[f"archive_{name}"] for name in ("file_id", "filename", "size_bytes")]
    if facts != [archive[name] for name in ("file_id", "filename", "size_bytes")]:
        yield f"its zip is {facts}, the packager's another"
    if archive["images"] != [[image["image_index"], image["file_id"]] for image in images]:
        yield f"its zip holds {archive['images']}"
    zips = [f["id"] for f in state.files.values() if f["kind"] == "ARCHIVE" and _is_of(f, job)]
    if zips != [archive["file_id"]]:
        yield f"its zips are the files {zips}"


def _is_of(file: Row, job: Row) -> bool:
    return bool((file["team"], file["job_id"]) == (job["team"], job["id"]))


def _charged(state: State, job: Row, images: list[Row]) -> Iterator[str]:
    """The ledger has one hold, one release, and one capture for each DONE image; or nothing."""
    told: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for entry in state.entries:
        if entry["job_id"] == job["id"]:
            told[entry["kind"]].append((entry["team"], entry["image_index"] or 0, entry["amount"]))
    wanted: dict[str, list[tuple[str, int, int]]] = {}
    if (held := job["credits_held"]) is not None:
        team, count = job["team"], job["number_of_variations"]
        done = [image["image_index"] for image in images if image["state"] == "DONE"]
        if (held, job["credits_released"]) != (count, count - len(done)):
            yield f"credits held {held}, released {job['credits_released']}; {len(done)} done"
        wanted = {
            "HOLD": [(team, 0, count)],
            "RELEASE": [(team, 0, count - len(done))],
            **({"CAPTURE": [(team, index, 1) for index in done]} if done else {}),
        }
    if {kind: sorted(entries) for kind, entries in told.items()} != wanted:
        yield f"the ledger tells {dict(told)}, not {wanted}"


def _adds_up(state: State, account: Row) -> Iterator[str]:
    """At rest nothing is held; the ledger bears the account out, and was never overdrawn."""
    granted, available, held, captured = (
        account[name] for name in ("granted", "available", "held", "captured")
    )
    if granted != available + held + captured or min(available, held, captured) < 0:
        yield f"granted {granted}, available {available}, held {held}, captured {captured}"
    sums: dict[str, int] = defaultdict(int)
    for entry in state.entries:
        if entry["team"] != account["team"]:
            continue
        sums[entry["kind"]] += entry["amount"]
        if (left := sums["GRANT"] - sums["HOLD"] + sums["RELEASE"]) < 0:
            yield f"overdrawn by {-left} with entry {entry['id']}"
    ledger = (sums["GRANT"], sums["GRANT"] - sums["HOLD"] + sums["RELEASE"], 0, sums["CAPTURE"])
    if (granted, available, held, captured) != ledger:
        yield f"is {(granted, available, held, captured)}, by the ledger {ledger}"


def _files(state: State) -> Iterator[str]:
    """Nothing is kept that no job wants; every file has its bytes, and they are counted."""
    wanted = {
        image["file_id"]
        for images in state.images.values()
        for image in images
        if image["state"] == "DONE"
    }
    for file in state.files.values():
        if file["kind"] == "GENERATED" and file["id"] not in wanted:
            yield f"file {file['id']} of job {file['job_id']} was made and never recorded"
        if state.blobs.get(file["blob_key"]) != file["size_bytes"]:
            yield f"file {file['id']} has no blob of its size"
    real: dict[str, int] = defaultdict(int)
    for file in state.files.values():
        real[file["team"]] += file["size_bytes"]
    said = {row["team"]: row["stored_bytes"] for row in state.storage if row["stored_bytes"]}
    if said != real:
        yield f"stored bytes are said to be {said}, and are {dict(real)}"
