"""What `contentshop credits`, `usage`, `storage` and `workflows` do."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.text import Text

from cli import words
from cli.asking import ask, ask_pages
from cli.errors import ExitCode
from cli.output import Output
from cli.plain import enum_word, to_plain
from contentshop.assets.v1 import assets_pb2
from contentshop.enqueue.v1 import credits_pb2, enqueue_pb2
from libs.common.clock import SystemClock

MICROS = 1_000_000


def credits_(
    *, entries: bool, limit: int, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Shows the account, or its ledger."""
    if entries:
        return _entries(limit, data, team, output)
    found = ask("enqueue", "GetCredits", enqueue_pb2.GetCreditsRequest(), data=data, team=team)
    account = found.credits
    output.say(account_line(account))
    output.result({"credits": to_plain(account)})
    return ExitCode.OK


def account_line(account: credits_pb2.Credits) -> str:
    """An account in one line."""
    if account.unlimited:
        return "this team needs no credits"
    return (
        f"{account.available} available, {account.held} held, {account.captured} used "
        f"of {account.granted} granted"
    )


def _entries(limit: int, data: Path | None, team: str | None, output: Output) -> ExitCode:
    request = enqueue_pb2.ListCreditEntriesRequest()
    found, more = ask_pages(
        "enqueue", "ListCreditEntries", request, "entries", limit=limit, data=data, team=team
    )
    kinds = credits_pb2.CreditEntryKind.DESCRIPTOR
    output.table(
        [("when", "left"), ("what", "left"), ("credits", "right"), ("job", "right"), ("", "left")],
        [
            (
                words.when(entry.time),
                enum_word(kinds, entry.kind).lower(),
                str(entry.amount),
                str(entry.job_id or ""),
                f"image {entry.image_index}" if entry.image_index else entry.note,
            )
            for entry in found
        ],
    )
    output.result({"entries": [to_plain(entry) for entry in found], "more": more})
    return ExitCode.OK


def usage(seconds: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Shows what a window of time took."""
    request: Any = enqueue_pb2.GetUsageRequest()
    getattr(request, "from").FromDatetime(SystemClock().now() - timedelta(seconds=seconds))
    found = ask("enqueue", "GetUsage", request, data=data, team=team)
    made = words.images(found.images, found.images)
    output.say(f"{made} of {found.jobs} jobs in {words.seconds(seconds)}")
    tokens = found.usage
    output.say(
        f"{tokens.total_tokens} tokens: {tokens.prompt_tokens} in, {tokens.output_tokens} out"
    )
    if tokens.cost_micros:
        output.say(f"cost {tokens.cost_micros / MICROS:.4f}")
    output.result({"usage": to_plain(found)})
    return ExitCode.OK


def storage(*, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Shows the team's stored bytes."""
    found = ask("assets", "GetStorage", assets_pb2.GetStorageRequest(), data=data, team=team)
    most = f" of {words.size(found.max_stored_bytes)}" if found.max_stored_bytes else ""
    output.say(f"{words.size(found.stored_bytes)}{most} stored")
    output.result({"storage": to_plain(found)})
    return ExitCode.OK


def workflows(*, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Shows the workflows."""
    request = enqueue_pb2.ListWorkflowsRequest()
    found = ask("enqueue", "ListWorkflows", request, data=data, team=team).workflows
    for workflow in found:
        output.say(Text(f"{workflow.schema_key}  ", style="bold").append(workflow.description))
        for field in workflow.fields:
            wanted = "required" if field.required else ""
            values = ", ".join(field.choices)
            facts = "; ".join(part for part in (wanted, values) if part)
            line = Text(f"  {field.name:<20}", style="cyan").append(field.description, style="none")
            output.say(line.append(f"  ({facts})" if facts else "", style="dim"))
    output.result({"workflows": [to_plain(workflow) for workflow in found]})
    return ExitCode.OK
