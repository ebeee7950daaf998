"""What must hold at every instant, and what must hold at rest, read from the world's database."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

from libs.common.broker import JOB_ENDED, JOB_ENQUEUED
from tests.simulation.world import EVENTS_DAYS
from tests.support.invariants import FINAL, PLACES, life_of_job

Row = dict[str, Any]
Told = AbstractSet[tuple[str, int]]
EVENTS_MICROS = EVENTS_DAYS * 86_400 * 1_000_000


def read(reader: sqlite3.Connection, now: datetime) -> dict[str, list[Row]]:
    """All rows that matter, as one reader sees them, and when."""
    tables = (
        *("teams", "jobs", "images", "events", "idempotency_keys", "outbox", "accounts"),
        *("credit_entries", "batches"),
    )
    reader.execute("BEGIN")
    found = {table: rows_of(reader, table) for table in tables}
    reader.execute("COMMIT")
    found["now"] = [{"at": int(now.timestamp() * 1_000_000)}]
    return found


def rows_of(reader: sqlite3.Connection, table: str) -> list[Row]:
    cursor = reader.execute(f"SELECT * FROM {table}")  # noqa: S608 - names of ours
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def broken_now(state: dict[str, list[Row]]) -> Iterator[str]:
    """One line per promise that does not hold at this instant."""
    limits = {team["team"]: team["max_live_jobs"] or PLACES for team in state["teams"]}
    live = Counter(
        job["team"]
        for job in state["jobs"]
        if job["admitted_at"] is not None and job["state"] in ("QUEUED", "RUNNING")
    )
    for team, count in live.items():
        if count > limits[team]:
            yield f"{team} has {count} live jobs, its limit is {limits[team]}"
    numbers: dict[int, list[int]] = defaultdict(list)
    for event in state["events"]:
        numbers[event["job_id"]].append(event["sequence"])
    for job in state["jobs"]:
        # Clean-up takes all events of a job that ended long ago; its zip may tell another after.
        told = sorted(numbers[job["id"]])
        wanted = list(range(1, job["last_sequence"] + 1))
        if _old(job, state):
            wanted = wanted[len(wanted) - len(told) :]
        if told != wanted:
            yield f"job {job['id']}: events {told} of {job['last_sequence']}"
    yield from _slots(state)
    yield from _credits(state)


def _old(job: Row, state: dict[str, list[Row]]) -> bool:
    """Whether clean-up may have taken its events; where nobody says the time, nothing is old."""
    age = [now["at"] - job["finished_at"] for now in state.get("now", ()) if job["state"] in FINAL]
    return bool(age) and age[0] > EVENTS_MICROS


def _slots(state: dict[str, list[Row]]) -> Iterator[str]:
    counts = Counter((image["job_id"], image["state"]) for image in state["images"])
    total = Counter(image["job_id"] for image in state["images"])
    for job in state["jobs"]:
        told = (job["images_done"], job["images_failed"])
        held = (counts[job["id"], "DONE"], counts[job["id"], "FAILED"])
        if told != held or total[job["id"]] != job["number_of_variations"]:
            yield f"job {job['id']}: counts {told}, slots {held} of {total[job['id']]}"


def _credits(state: dict[str, list[Row]]) -> Iterator[str]:
    """granted = available + held + captured, by the ledger and by the jobs."""
    ledger: dict[str, Counter[str]] = defaultdict(Counter)
    of_job: dict[int, Counter[str]] = defaultdict(Counter)
    for entry in state["credit_entries"]:
        ledger[entry["team"]][entry["kind"]] += entry["amount"]
        if entry["job_id"] is not None:
            of_job[entry["job_id"]][entry["kind"]] += entry["amount"]
    for account in state["accounts"]:
        team, sums = account["team"], ledger[account["team"]]
        if account["granted"] != sums["GRANT"]:
            yield f"{team}: granted {account['granted']}, the ledger says {sums['GRANT']}"
        if account["granted"] != account["available"] + account["held"] + account["captured"]:
            yield f"{team}: the account does not add up: {account}"
        available = sums["GRANT"] - sums["HOLD"] + sums["RELEASE"]
        if account["available"] != available:
            yield f"{team}: available {account['available']}, the ledger says {available}"
    paying = {account["team"] for account in state["accounts"]}
    for job in state["jobs"]:
        kinds = of_job[job["id"]]
        if job["team"] not in paying:
            continue
        if kinds["HOLD"] != job["number_of_variations"]:
            yield f"job {job['id']}: held {kinds['HOLD']}"
        if kinds["CAPTURE"] != job["images_done"]:
            yield f"job {job['id']}: {job['images_done']} images DONE, {kinds['CAPTURE']} captured"
        ended = job["state"] in FINAL
        rest = kinds["HOLD"] - kinds["CAPTURE"] if ended else 0
        if kinds["RELEASE"] != rest:
            yield f"job {job['id']}, {job['state']}: released {kinds['RELEASE']}, not {rest}"


def untold(state: dict[str, list[Row]], told: Told) -> Iterator[str]:
    """One line per message that a job owed and that never reached the broker, at rest."""
    for job in state["jobs"]:
        for kind in (JOB_ENQUEUED, JOB_ENDED):
            if (kind, job["id"]) not in told:
                yield f"job {job['id']}, {job['state']}: nobody was ever told {kind}"


def broken_at_rest(state: dict[str, list[Row]]) -> Iterator[str]:
    """One line per promise that does not hold once everything has come to rest."""
    yield from broken_now(state)
    images: dict[int, list[Row]] = defaultdict(list)
    events: dict[int, list[Row]] = defaultdict(list)
    for image in sorted(state["images"], key=lambda i: (i["job_id"], i["image_index"])):
        images[image["job_id"]].append(image)
    for event in sorted(state["events"], key=lambda e: (e["job_id"], e["sequence"])):
        events[event["job_id"]].append(event)
    for job in state["jobs"]:
        name = f"job {job['id']} of {job['team']}, {job['state']}"
        if job["state"] not in FINAL:
            yield f"{name}: has not ended"
            continue
        if len(events[job["id"]]) == job["last_sequence"]:
            life = life_of_job(job, images[job["id"]], events[job["id"]])
            yield from (f"{name}: {broken}" for broken in life)
        if job["archive_state"] == "PENDING":
            yield f"{name}: its zip is still PENDING"
    if state["outbox"]:
        yield f"the outbox holds {len(state['outbox'])} rows"
    keys = [(key["team"], key["method"], key["resource_id"]) for key in state["idempotency_keys"]]
    jobs = {job["id"] for job in state["jobs"]}
    for team, method, made in keys:
        if method.startswith("EnqueueGeneration") and made not in jobs:
            yield f"a key of {team} names job {made}, which is not there"
