"""The checker of promises sees each broken one; else what it passes would mean nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from tests.support.invariants import Row, State, broken_promises

START = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


def _event(job_id: int, sequence: int, kind: str, **changes: object) -> Row:
    event = {
        "job_id": job_id,
        "sequence": sequence,
        "team": "red",
        "kind": kind,
        "at": START + timedelta(seconds=sequence),
        "image_index": 0,
        "file_id": 0,
        "error_reason": None,
    }
    return event | changes


def _job() -> Row:
    return {
        "id": 1,
        "team": "red",
        "state": "SUCCEEDED",
        "last_sequence": 7,
        "number_of_variations": 2,
        "images_done": 2,
        "images_failed": 0,
        "finished_at": START,
        "lease_expires_at": None,
        "error_reason": None,
        "pin_token": "pin",
        "archive_state": "READY",
        "archive_file_id": 13,
        "archive_filename": "generation-1-1.zip",
        "archive_size_bytes": 5,
        "batch_id": None,
        "credits_held": 2,
        "credits_released": 0,
    }


def _entry(entry_id: int, kind: str, amount: int, **changes: object) -> Row:
    entry = {"id": entry_id, "team": "red", "kind": kind, "amount": amount}
    return entry | {"job_id": 1, "image_index": None} | changes


def _file(file_id: int, kind: str, index: int) -> Row:
    return {
        "id": file_id,
        "team": "red",
        "kind": kind,
        "job_id": 1,
        "image_index": index,
        "sha256": "x",
        "size_bytes": 5,
        "blob_key": f"blob-{file_id}",
        "recorded_at": START,
    }


def _good() -> State:
    """One job of two images, with its zip."""
    done = [_event(1, 3 + n, "IMAGE_DONE", image_index=n, file_id=10 + n) for n in (1, 2)]
    archive = {"state": "READY", "file_id": 13, "filename": "generation-1-1.zip"}
    return State(
        teams=[{"team": "red", "max_live_jobs": None}],
        jobs=[_job()],
        images={
            1: [
                {"image_index": n, "state": "DONE", "file_id": 10 + n, "sha256": "x"}
                for n in (1, 2)
            ]
        },
        events={
            1: [
                *(
                    _event(1, n, kind)
                    for n, kind in enumerate(("QUEUED", "ADMITTED", "STARTED"), 1)
                ),
                *done,
                _event(1, 6, "SUCCEEDED"),
                _event(1, 7, "ARCHIVE_READY"),
            ]
        },
        keys=[
            {"method": "EnqueueGeneration", "resource_id": 1},
            {"method": "GrantCredits", "resource_id": 1},
        ],
        accounts=[{"team": "red", "granted": 5, "available": 3, "held": 0, "captured": 2}],
        entries=[
            _entry(1, "GRANT", 5, job_id=None),
            _entry(2, "HOLD", 2),
            *(_entry(2 + n, "CAPTURE", 1, image_index=n) for n in (1, 2)),
            _entry(5, "RELEASE", 0),
        ],
        outbox=0,
        files={
            11: _file(11, "GENERATED", 1),
            12: _file(12, "GENERATED", 2),
            13: _file(13, "ARCHIVE", 0),
        },
        storage=[
            {"team": "red", "stored_bytes": 15},
            {"team": "blue", "stored_bytes": 0},
        ],
        pins=[],
        archives={("red", 1): archive | {"size_bytes": 5, "images": [[1, 11], [2, 12]]}},
        blobs={"blob-11": 5, "blob-12": 5, "blob-13": 5},
    )


def test_a_whole_job_breaks_nothing() -> None:
    assert list(broken_promises(_good())) == []


def _four_admitted(state: State) -> None:
    for job_id in range(2, 5):
        state.jobs.append(_job() | {"id": job_id})
        state.events[job_id] = [_event(job_id, 2, "ADMITTED")]
        state.images[job_id] = []


FAULTS: dict[str, Callable[[State], object]] = {
    "had 4 live jobs": _four_admitted,
    "has not ended": lambda state: state.jobs[0].update(state="RUNNING"),
    "events [1, 2, 3, 4, 5, 7]": lambda state: state.events[1].pop(5),
    "ends with": lambda state: state.events[1][5].update(kind="FAILED"),
    "IMAGE_DONE told of": lambda state: state.events[1][4].update(image_index=1),
    "images ['DONE', 'PENDING']": lambda state: state.images[1][1].update(state="PENDING"),
    "counts 3 done": lambda state: state.jobs[0].update(images_done=3),
    "still a lease": lambda state: state.jobs[0].update(lease_expires_at=START),
    "error INTERNAL": lambda state: state.jobs[0].update(error_reason="INTERNAL"),
    "file 12 is not there": lambda state: state.files.pop(12),
    "image 2 is": lambda state: state.files[12].update(sha256="y"),
    "image 2 is not visible": lambda state: state.files[12].update(recorded_at=None),
    "still pinned": lambda state: state.pins.append({"pin_token": "pin"}),
    "its zip is PENDING": lambda state: state.jobs[0].update(archive_state="PENDING"),
    "the packager has its zip as None": lambda state: state.archives.clear(),
    "the packager's another": lambda state: state.jobs[0].update(archive_size_bytes=6),
    "its zip holds": lambda state: state.archives["red", 1]["images"].reverse(),
    "its zips are the files": lambda state: state.files.update({14: _file(14, "ARCHIVE", 0)}),
    "never recorded": lambda state: state.files.update({14: _file(14, "GENERATED", 1)}),
    "no blob of its size": lambda state: state.blobs.pop("blob-11"),
    "stored bytes are said to be {'red': 14}": lambda state: state.storage[0].update(
        stored_bytes=14
    ),
    "stored bytes are said to be {}": lambda state: state.storage.clear(),
    "the outbox holds": lambda state: object.__setattr__(state, "outbox", 2),
    "key of nothing: {'method': 'RetryJob'": lambda state: state.keys.append(
        {"method": "RetryJob", "resource_id": 9}
    ),
    "key of nothing: {'method': 'GrantCredits'": lambda state: state.keys[1].update(resource_id=2),
    "credits held 3": lambda state: state.jobs[0].update(credits_held=3),
    "released None": lambda state: state.jobs[0].update(credits_released=None),
    # One capture twice, one that no image bears out, one hold of a job that holds none.
    "'CAPTURE': [('red', 1, 1), ('red', 1, 1)]": lambda state: state.entries[3].update(
        image_index=1
    ),
    "'CAPTURE': [('red', 1, 1)], 'RELEASE'": lambda state: state.entries.pop(3),
    "not {}": lambda state: state.jobs[0].update(credits_held=None, credits_released=None),
    "'HOLD': [('blue', 0, 2)]": lambda state: state.entries[1].update(team="blue"),
    "granted 5, available 2, held": lambda state: state.accounts[0].update(available=2),
    "available -1": lambda state: state.accounts[0].update(available=-1, held=4),
    "is (5, 2, 1, 2), by the ledger (5, 3, 0, 2)": lambda state: state.accounts[0].update(
        available=2, held=1
    ),
    "overdrawn by 2 with entry 2": lambda state: state.entries.append(state.entries.pop(0)),
}


@pytest.mark.parametrize("told", FAULTS)
def test_every_broken_promise_is_told(told: str) -> None:
    state = copy.deepcopy(_good())
    FAULTS[told](state)
    broken = list(broken_promises(state))
    assert any(told in line for line in broken), broken
