"""What `contentshop ops …` does."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from cli import words
from cli.accounting import account_line
from cli.asking import ask, ask_pages
from cli.connection import checked_team
from cli.errors import ExitCode
from cli.output import Output
from cli.plain import enum_word, to_plain
from contentshop.assets.v1 import assets_pb2
from contentshop.enqueue.v1 import job_pb2, ops_pb2
from libs.common.clock import SystemClock


def queues(*, data: Path | None, output: Output) -> ExitCode:
    """Shows lanes, teams and models."""
    stats = ask("ops", "GetQueueStats", ops_pb2.GetQueueStatsRequest(), data=data)
    output.table(
        [
            ("lane", "left"),
            *((h, "right") for h in ("waiting", "admitted", "running", "oldest", "slots")),
            ("", "left"),
        ],
        [
            (
                lane.lane,
                str(lane.waiting),
                str(lane.admitted),
                str(lane.running),
                words.seconds(lane.oldest_admitted_seconds) if lane.admitted else "",
                f"{lane.slots_taken}/{lane.slots} of {lane.workers} workers",
                "paused" if lane.paused else "",
            )
            for lane in stats.lanes
        ],
    )
    if stats.teams:
        output.say("")
        output.table(
            [("team", "left"), ("live", "right"), ("waiting", "right"), ("oldest", "right")],
            [
                (
                    team.team,
                    f"{team.live}/{team.live_limit}",
                    str(team.waiting),
                    words.seconds(team.oldest_waiting_seconds) if team.waiting else "",
                )
                for team in stats.teams
            ],
        )
    if stats.models:
        output.say("")
        output.table(
            [("model", "left"), ("calls per minute", "right"), ("circuit", "left")],
            [(m.model, _rate(m), m.circuit.lower().replace("_", " ")) for m in stats.models],
        )
    output.say(f"{stats.outbox} messages are not published yet")
    output.result({"queues": to_plain(stats)})
    return ExitCode.OK


def _rate(model: ops_pb2.ModelStats) -> str:
    if not model.calls_per_minute_limit:
        return "no limit"
    return f"{model.calls_per_minute:g} of {model.calls_per_minute_limit:g}"


def metrics(seconds: int, team: str, *, data: Path | None, output: Output) -> ExitCode:
    """Shows how jobs went."""
    request: Any = ops_pb2.GetJobMetricsRequest(team=team)
    getattr(request, "from").FromDatetime(SystemClock().now() - timedelta(seconds=seconds))
    found = ask("ops", "GetJobMetrics", request, data=data)
    headings = ("jobs", "succeeded", "failed", "canceled", "mean", "p50", "p95", "waited")
    output.table(
        [("type", "left"), *((heading, "right") for heading in headings)],
        [
            (
                enum_word(job_pb2.JobType.DESCRIPTOR, one.type).lower(),
                *(str(count) for count in (one.total, one.succeeded, one.failed, one.canceled)),
                *(
                    words.seconds(value)
                    for value in (
                        one.mean_seconds,
                        one.p50_seconds,
                        one.p95_seconds,
                        one.mean_wait_seconds,
                    )
                ),
            )
            for one in found.types
        ],
    )
    output.result({"metrics": to_plain(found)})
    return ExitCode.OK


def dead(team: str, limit: int, *, data: Path | None, output: Output) -> ExitCode:
    """Lists dead jobs."""
    request = ops_pb2.ListDeadJobsRequest(team=team)
    found, more = ask_pages("ops", "ListDeadJobs", request, "jobs", limit=limit, data=data)
    output.table(
        [("job", "right"), ("team", "left"), ("lane", "left"), ("died", "left"), ("why", "left")],
        [
            (
                str(one.job_id),
                one.team,
                one.lane,
                words.when(one.finish_time),
                f"{one.error.reason}: {one.error.message}",
            )
            for one in found
        ],
    )
    output.result({"jobs": [to_plain(one) for one in found], "more": more})
    return ExitCode.OK


def requeue(job_id: int, *, data: Path | None, output: Output) -> ExitCode:
    """Runs a dead job again."""
    request = ops_pb2.RequeueDeadJobRequest(job_id=job_id)
    answer = ask("ops", "RequeueDeadJob", request, data=data)
    output.say(str(answer.job_id))
    output.result({"job_id": answer.job_id})
    return ExitCode.OK


def grant(
    team: str, amount: int, note: str, request_id: str, *, data: Path | None, output: Output
) -> ExitCode:
    """Gives credits."""
    request = ops_pb2.GrantCreditsRequest(
        request_id=request_id, team=checked_team(team), amount=amount, note=note
    )
    account = ask("ops", "GrantCredits", request, data=data).credits
    output.say(f"{team}: {account_line(account)}")
    output.result({"credits": to_plain(account)})
    return ExitCode.OK


def credits_check(*, data: Path | None, output: Output) -> ExitCode:
    """Compares the accounts; FAILED where one does not add up."""
    found = ask("ops", "CheckCredits", ops_pb2.CheckCreditsRequest(), data=data)
    for one in found.differences:
        where = f"{one.team}, job {one.job_id}" if one.job_id else one.team
        output.say(f"{where}: {one.message}")
    output.say(f"{found.accounts} accounts, {len(found.differences)} differences")
    output.result({"check": to_plain(found)})
    return ExitCode.FAILED if found.differences else ExitCode.OK


def limits(
    team: str,
    *,
    live_jobs: int | None,
    calls_per_minute: int | None,
    storage_bytes: int | None,
    data: Path | None,
    output: Output,
) -> ExitCode:
    """Sets and shows a team's limits, at enqueue and at assets."""
    name = checked_team(team)
    at_enqueue = ask(
        "ops",
        "SetTeamLimits",
        ops_pb2.SetTeamLimitsRequest(
            team=name, max_live_jobs=live_jobs, calls_per_minute=calls_per_minute
        ),
        data=data,
    )
    at_assets = ask(
        "assets_ops",
        "SetTeamStorage",
        assets_pb2.SetTeamStorageRequest(
            team=name, max_stored_bytes=storage_bytes, calls_per_minute=calls_per_minute
        ),
        data=data,
    )
    output.say(f"{team}: {at_enqueue.max_live_jobs} live jobs")
    calls = at_enqueue.calls_per_minute
    output.say(f"{calls} calls per minute" if calls else "no limit of calls")
    stored = at_assets.max_stored_bytes
    output.say(f"{words.size(stored)} stored" if stored else "no limit of stored bytes")
    output.result({"enqueue": to_plain(at_enqueue), "assets": to_plain(at_assets)})
    return ExitCode.OK


def pause(lane: str, reason: str, *, data: Path | None, output: Output) -> ExitCode:
    """Pauses a lane."""
    ask("ops", "PauseLane", ops_pb2.PauseLaneRequest(lane=lane, reason=reason), data=data)
    output.say(f"{lane} is paused")
    output.result({"lane": lane, "paused": True})
    return ExitCode.OK


def resume(lane: str, *, data: Path | None, output: Output) -> ExitCode:
    """Resumes a lane."""
    ask("ops", "ResumeLane", ops_pb2.ResumeLaneRequest(lane=lane), data=data)
    output.say(f"{lane} goes on")
    output.result({"lane": lane, "paused": False})
    return ExitCode.OK


def model(name: str, calls_per_minute: int, *, data: Path | None, output: Output) -> ExitCode:
    """Sets a model's limit; says so where no worker has called a model of that name."""
    stats = ask("ops", "GetQueueStats", ops_pb2.GetQueueStatsRequest(), data=data)
    known = sorted(one.model for one in stats.models)
    request = ops_pb2.SetModelLimitRequest(model=name, calls_per_minute=calls_per_minute)
    found = ask("ops", "SetModelLimit", request, data=data).model
    output.say(f"{name}: {_rate(found)} calls per minute")
    if known and name not in known:  # as yet; a limit may be set before a model's first call
        names = ", ".join(known)
        output.warn(f"no worker has called a model {name!r} so far; known are {names}")
    output.result({"model": to_plain(found), "known": name in known})
    return ExitCode.OK


def audit(team: str, job_id: int, limit: int, *, data: Path | None, output: Output) -> ExitCode:
    """Shows who did what."""
    request = ops_pb2.ListAuditEntriesRequest(team=team, job_id=job_id)
    found, more = ask_pages("ops", "ListAuditEntries", request, "entries", limit=limit, data=data)
    headings = ("when", "who", "what", "team", "job", "details")
    output.table(
        [(heading, "left") for heading in headings],
        [
            (
                words.when(entry.time),
                entry.actor,
                entry.action.lower().replace("_", " "),
                entry.team,
                str(entry.job_id or ""),
                entry.details_json,
            )
            for entry in found
        ],
    )
    output.result({"entries": [to_plain(entry) for entry in found], "more": more})
    return ExitCode.OK
