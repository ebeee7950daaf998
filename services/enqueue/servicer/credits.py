"""EnqueueService: the team's credits."""

from __future__ import annotations

from typing import Any

from contentshop.enqueue.v1 import credits_pb2, enqueue_pb2
from libs.common.auth import current_caller
from libs.common.checks import MAX_ID, checking
from libs.common.paging import page_size
from services.enqueue.servicer.convert import timestamp
from services.enqueue.servicer.means import Doors
from services.enqueue.store.ledger import Account, Entry
from services.enqueue.usecases import crediting

DEFAULT_ENTRIES = 100
MAX_ENTRIES = 500


class CreditDoors(Doors):
    """Requests about credits; the team is the token's."""

    async def GetCredits(
        self, request: enqueue_pb2.GetCreditsRequest, context: Any
    ) -> enqueue_pb2.GetCreditsResponse:
        """The team's account."""
        balance = await crediting.get_credits(self._means.deps, current_caller().team)
        return enqueue_pb2.GetCreditsResponse(
            credits=credits_message(balance.account, unlimited=balance.unlimited)
        )

    async def ListCreditEntries(
        self, request: enqueue_pb2.ListCreditEntriesRequest, context: Any
    ) -> enqueue_pb2.ListCreditEntriesResponse:
        """A page of the team's ledger, newest first."""
        team, job_id = current_caller().team, request.job_id
        with checking() as check:
            check.within(job_id, 0, MAX_ID, "job_id")
        limit = page_size(request.page_size, default=DEFAULT_ENTRIES, most=MAX_ENTRIES)
        scope = ("ListCreditEntries", team, job_id)
        before = self._means.tokens.open(request.page_token, *scope)
        found = await crediting.list_entries(
            self._means.deps, team, job_id=job_id, before_id=before, limit=limit + 1
        )
        token = self._means.tokens.seal(found[limit - 1].id, *scope) if len(found) > limit else ""
        return enqueue_pb2.ListCreditEntriesResponse(
            entries=[_entry_message(entry) for entry in found[:limit]], next_page_token=token
        )


def credits_message(account: Account, *, unlimited: bool) -> credits_pb2.Credits:
    """A Credits."""
    return credits_pb2.Credits(
        unlimited=unlimited,
        granted=account.granted,
        available=account.available,
        held=account.held,
        captured=account.captured,
    )


def _entry_message(entry: Entry) -> credits_pb2.CreditEntry:
    return credits_pb2.CreditEntry(
        id=entry.id,
        kind=credits_pb2.CreditEntryKind.Value(f"CREDIT_ENTRY_KIND_{entry.kind}"),
        amount=entry.amount,
        job_id=entry.job_id,
        image_index=entry.image_index,
        time=timestamp(entry.at),
        note=entry.note,
    )
