"""OpsService: credits, and the audit."""

from __future__ import annotations

import json
from typing import Any

from contentshop.enqueue.v1 import ops_pb2
from libs.common.auth import TEAM_PATTERN, current_caller
from libs.common.canonical import request_key
from libs.common.checks import MAX_ID, checking
from libs.common.paging import page_size
from services.enqueue.servicer.convert import timestamp
from services.enqueue.servicer.credits import credits_message
from services.enqueue.servicer.means import Doors
from services.enqueue.store.audit import AuditEntry
from services.enqueue.usecases import auditing, crediting, reconciling

MAX_AMOUNT = 1_000_000_000
MAX_NOTE_CHARS = 200
DEFAULT_ENTRIES = 100
MAX_ENTRIES = 500


class OpsCreditDoors(Doors):
    """Requests about the credits of all teams, and about who did what."""

    async def GrantCredits(
        self, request: ops_pb2.GrantCreditsRequest, context: Any
    ) -> ops_pb2.GrantCreditsResponse:
        """Gives a team credits."""
        with checking() as check:
            if check.check(bool(request.request_id), "request_id", "is needed: this is money"):
                check.request_id(request.request_id)
            check.check(
                TEAM_PATTERN.fullmatch(request.team) is not None, "team", "is not a team's name"
            )
            check.within(request.amount, 1, MAX_AMOUNT, "amount")
            check.text(request.note, MAX_NOTE_CHARS, "note")
        account = await crediting.grant_credits(
            self._means.deps,
            request_key(request.team, "GrantCredits", request),
            request.amount,
            actor=current_caller().subject,
            note=request.note,
        )
        return ops_pb2.GrantCreditsResponse(credits=credits_message(account, unlimited=False))

    async def CheckCredits(
        self, request: ops_pb2.CheckCreditsRequest, context: Any
    ) -> ops_pb2.CheckCreditsResponse:
        """Compares accounts, ledger and jobs."""
        found = await reconciling.check_credits(self._means.deps)
        return ops_pb2.CheckCreditsResponse(
            accounts=found.accounts,
            differences=[
                ops_pb2.CreditDifference(team=d.team, job_id=d.job_id, message=d.message)
                for d in found.differences
            ],
        )

    async def ListAuditEntries(
        self, request: ops_pb2.ListAuditEntriesRequest, context: Any
    ) -> ops_pb2.ListAuditEntriesResponse:
        """A page of the audit, newest first."""
        team, job_id = request.team, request.job_id
        with checking() as check:
            check.check(
                not team or TEAM_PATTERN.fullmatch(team) is not None, "team", "is not a team's name"
            )
            check.within(job_id, 0, MAX_ID, "job_id")
        limit = page_size(request.page_size, default=DEFAULT_ENTRIES, most=MAX_ENTRIES)
        scope = ("ListAuditEntries", team, job_id)
        before = self._means.tokens.open(request.page_token, *scope)
        found = await auditing.list_entries(
            self._means.deps, team=team, job_id=job_id, before_id=before, limit=limit + 1
        )
        token = self._means.tokens.seal(found[limit - 1].id, *scope) if len(found) > limit else ""
        return ops_pb2.ListAuditEntriesResponse(
            entries=[_entry_message(entry) for entry in found[:limit]], next_page_token=token
        )


def _entry_message(entry: AuditEntry) -> ops_pb2.AuditEntry:
    return ops_pb2.AuditEntry(
        id=entry.id,
        team=entry.team,
        actor=entry.actor,
        action=entry.action,
        job_id=entry.job_id,
        details_json=json.dumps(entry.details, ensure_ascii=False, sort_keys=True),
        time=timestamp(entry.at),
    )
