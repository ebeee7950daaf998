"""What a run came to: what was promised and kept, how long healing took, what was wasted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from tests.chaos.house import ChaosHouse, Deed
from tests.chaos.load import Accepted
from tests.support.invariants import FINAL, State

# What the goal leaves apart: while one of these lasts, and for this long after.
BROKER = ("broker", "queues", "rabbit")
SERVERS = (*BROKER, "database", "postgres", "gemini key revoked")
# Why a job is taken from its worker, or given back by one that leaves.
INTERRUPTED = ("WORKER_LOST", "WORKER_DRAINED")
APART_AFTER = timedelta(seconds=15)
GOAL_SECONDS = 20.0


def kept(accepted: Accepted, state: State) -> Iterator[str]:
    """One line per accepted request that is not in the rows exactly once."""
    rows = {job["id"] for job in state.jobs}
    keys = {(k["team"], k["method"], k["request_id"]): k["resource_id"] for k in state.keys}
    for request, made in accepted.requests.items():
        if keys.get(request) != made:
            yield f"{request} was answered with {made}, and its key says {keys.get(request)}"
    for job_id in accepted.jobs.keys() - rows:
        yield f"job {job_id} was accepted, and is not there"
    for job_id in rows - accepted.jobs.keys():
        yield f"job {job_id} is there, and nobody was told of it"
    last = {job["id"]: job["last_sequence"] for job in state.jobs}
    for job_id, seen in accepted.jobs.items():
        if seen is not None and seen.cursor != last.get(job_id):
            yield f"the watcher of job {job_id} saw {seen.cursor} of {last.get(job_id)} events"


def counted(accepted: Accepted, state: State) -> dict[str, int]:
    """Lost, double and stuck; each should be 0."""
    rows = {job["id"] for job in state.jobs}
    slots = Counter(
        (f["team"], f["job_id"], f["image_index"])
        for f in state.files.values()
        if f["kind"] == "GENERATED" and f["recorded_at"] is not None
    )
    captures = Counter(
        (e["job_id"], e["image_index"]) for e in state.entries if e["kind"] == "CAPTURE"
    )
    made = Counter(accepted.requests.values())
    return {
        "lost": len(accepted.jobs.keys() - rows),
        "double_jobs": len(rows - accepted.jobs.keys()),
        "double_images": sum(count > 1 for count in slots.values()),
        "double_charges": sum(count > 1 for count in captures.values()),
        "stuck": sum(job["state"] not in FINAL for job in state.jobs),
        "requests": made.total(),
    }


def recoveries(house: ChaosHouse, state: State) -> dict[str, Any]:
    """Seconds from the end of a process to each of its jobs running again.

    Of a worker: the jobs that it ran. Of an enqueue: all that ran, and that were taken from workers
    to which nothing was done meanwhile.
    """
    all_of: list[float] = []
    broker_apart: list[float] = []
    whole: list[float] = []
    slow: list[str] = []
    went_on = 0
    for deed in house.ledger.deeds:
        for job_id in _interrupted_by(deed, state):
            events = state.events[job_id]
            seconds = _back_after(events, deed)
            if seconds is None or _has_another_cause(house, job_id, deed, seconds):
                went_on += 1
                continue
            all_of.append(seconds)
            others = _meanwhile(house, deed, seconds)
            if not any(name.startswith(BROKER) for name in others):
                broker_apart.append(seconds)
                if seconds > GOAL_SECONDS:
                    what = f"{deed.name} {deed.victim}"
                    life = "; ".join(_told(events, deed, seconds))
                    slow.append(f"job {job_id}: {seconds:.1f} s after {what}: {life}; {others}")
            if not any(name.startswith(SERVERS) for name in others):
                whole.append(seconds)
    return {
        "all": _spread(all_of),
        "broker_faults_apart": _spread(broker_apart),
        "broker_and_database_faults_apart": _spread(whole),
        "went_on_or_ended": went_on,
        "past_the_goal_broker_faults_apart": slow,
    }


def _interrupted_by(deed: Deed, state: State) -> Iterable[int]:
    if deed.victim.startswith("worker"):
        return deed.jobs
    if deed.victim.startswith("enqueue") and deed.kind in {"kill", "freeze", "crash point"}:
        return _running_at(state, deed.at)
    return ()


def _running_at(state: State, moment: datetime) -> Iterator[int]:
    for job_id, events in state.events.items():
        life = [e["kind"] for e in events if e["at"] <= moment]
        turns = [kind for kind in life if kind in {"STARTED", "REQUEUED", *FINAL}]
        if turns[-1:] == ["STARTED"]:
            yield job_id


def _back_after(events: list[dict[str, Any]], deed: Deed) -> float | None:
    """Until it was claimed anew; None where it was not taken from its worker, or had ended.

    What its worker gave back for a reason of its own (a bad answer, the blob store) was running.
    """
    requeued = False
    for event in events:
        if event["at"] <= deed.at:
            continue
        if event["kind"] in FINAL:
            return None
        if event["kind"] == "REQUEUED" and not requeued:
            if event["error_reason"] not in INTERRUPTED:
                return None
            requeued = True
        if event["kind"] == "STARTED" and requeued:
            return float((event["at"] - deed.at).total_seconds())
    return None


def _told(events: list[dict[str, Any]], deed: Deed, seconds: float) -> Iterator[str]:
    """What was told of a job from shortly before a deed until it ran again."""
    for event in events:
        after = (event["at"] - deed.at).total_seconds()
        if -2 * APART_AFTER.total_seconds() <= after <= seconds + 0.001:
            yield f"{after:+.1f} {event['kind']} {event['error_reason'] or ''}".rstrip()


def _has_another_cause(house: ChaosHouse, job_id: int, deed: Deed, seconds: float) -> bool:
    """Whether something was done to its worker, after an enqueue that did it no harm."""
    until = deed.at + timedelta(seconds=seconds)
    return not deed.jobs and any(
        job_id in other.jobs and deed.at - APART_AFTER <= other.at <= until
        for other in house.ledger.deeds
    )


def _meanwhile(house: ChaosHouse, deed: Deed, seconds: float) -> list[str]:
    """What else was done while it healed, or not long before: when, how long, and to whom."""
    until = deed.at + timedelta(seconds=seconds)
    return [
        f"{other.name} {other.victim}".strip() + f" {_when(other, deed)}"
        for other in house.ledger.deeds
        if other is not deed
        and other.at <= until
        and (other.until or other.at) + APART_AFTER >= deed.at
    ]


def _when(other: Deed, deed: Deed) -> str:
    begins = f"{(other.at - deed.at).total_seconds():+.0f}"
    if other.until is None:
        return begins
    return f"{begins}..{(other.until - deed.at).total_seconds():+.0f}"


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {
        "count": len(ordered),
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "max": round(ordered[-1], 2),
    }


def summary(house: ChaosHouse, accepted: Accepted, state: State) -> dict[str, Any]:
    """All figures of a run."""
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for deed in house.ledger.deeds:
        by_kind[deed.kind][f"{deed.name} {deed.victim}".strip()] += 1
    ends = {kind: by_kind[kind].total() for kind in ("kill", "term", "crash point")}
    images = sum(row["state"] == "DONE" for rows in state.images.values() for row in rows)
    answered = house.gemini.answers["image"]
    failed = Counter(job["error_reason"] for job in state.jobs if job["state"] == "FAILED")
    lost_workers = sum(job["lost_workers"] for job in state.jobs)
    return {
        "jobs": len(state.jobs),
        "jobs_by_end": dict(Counter(job["state"] for job in state.jobs)),
        "jobs_failed_by_reason": dict(failed),
        "commits_cut": house.ledger.commits_cut,
        "batches": accepted.batches,
        "canceled": accepted.canceled,
        "retried": accepted.retried,
        "images_done": images,
        "service_ends": {**ends, "all": sum(ends.values())},
        "disturbances": {kind: dict(sorted(names.items())) for kind, names in by_kind.items()},
        **counted(accepted, state),
        "generator_calls": house.gemini.count,
        "generator_images_answered": answered,
        "generator_images_wasted": answered - images,
        "generator_answers": dict(house.gemini.answers),
        "leases_lost_to_dead_workers": lost_workers,
        "running_again_seconds": recoveries(house, state),
        "watchers": accepted.watchers,
        "watchers_came_back": accepted.connections - accepted.watchers,
        "calls_repeated": dict(house.ledger.answers),
    }
