"""Credits: what a request must find, and what operators give."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from libs.common import request_keys
from libs.common.db import Tx
from libs.common.errors import FailedPreconditionError
from libs.common.request_keys import RequestKey
from services.enqueue import tables
from services.enqueue.store import audit, ledger
from services.enqueue.store.ledger import Account, Entry
from services.enqueue.usecases.deps import Deps


@dataclass(frozen=True, slots=True)
class Balance:
    """A team's credits, and whether it needs any."""

    account: Account
    unlimited: bool

    def enough_for(self, required: int) -> bool:
        """Whether so many credits could be held now."""
        return self.unlimited or self.account.available >= required


class Purse:
    """The credits of the teams of one transaction, while it decides request by request.

    Made by `open_purse`, which holds the accounts' locks: nobody else spends meanwhile.
    """

    def __init__(self, accounts: Mapping[str, Account], *, unlimited: bool) -> None:
        self._available = {team: account.available for team, account in accounts.items()}
        self._unlimited = unlimited

    @property
    def paying(self) -> frozenset[str]:
        """The teams whose jobs hold credits."""
        return frozenset(self._available)

    def refusal(self, team: str, required: int) -> FailedPreconditionError | None:
        """Why a request may not have so many credits: INSUFFICIENT_CREDITS; None where it may."""
        available = self._available.get(team)
        if available is None and self._unlimited:
            return None
        remaining = available or 0
        if required <= remaining:
            return None
        return FailedPreconditionError(
            f"the request needs {required} credits, the team has {remaining}",
            reason="INSUFFICIENT_CREDITS",
            metadata={"required": str(required), "remaining": str(remaining)},
        )

    def take(self, team: str, required: int) -> None:
        """Takes what `refusal` did not refuse; the next request finds so much less."""
        if team in self._available:
            self._available[team] -= required


async def open_purse(tx: Tx, deps: Deps, teams: Collection[str]) -> Purse:
    """The teams' credits, their accounts locked; the caller holds the teams' locks."""
    accounts = await ledger.lock(tx, teams)
    return Purse(accounts, unlimited=deps.limits.unlimited_without_account)


async def balance(tx: Tx, deps: Deps, team: str) -> Balance:
    """A team's credits as they stand; takes no lock."""
    account = await ledger.find(tx, team)
    if account is None:
        return Balance(Account(), deps.limits.unlimited_without_account)
    return Balance(account, unlimited=False)


async def get_credits(deps: Deps, team: str) -> Balance:
    """A team's credits."""
    async with deps.db.read(team) as tx:
        return await balance(tx, deps, team)


async def list_entries(
    deps: Deps, team: str, *, job_id: int, before_id: int | None, limit: int
) -> list[Entry]:
    """A page of a team's ledger, newest first."""
    async with deps.db.read(team) as tx:
        return await ledger.page(tx, team, job_id=job_id, before_id=before_id, limit=limit)


async def grant_credits(
    deps: Deps, key: RequestKey, amount: int, *, actor: str, note: str
) -> Account:
    """Gives credits to the key's team, once; the account, made where there was none.

    Raises:
        AlreadyExistsError: IDEMPOTENCY_KEY_REUSED.
    """
    async with deps.db.duty() as tx:
        await ledger.open_account(tx, key.team)
        # The account's lock keeps a repeat of the key waiting until the first is kept.
        account = (await ledger.lock(tx, [key.team]))[key.team]
        if await request_keys.find_same(tx, tables.idempotency_keys, key) is not None:
            return account
        entry_id = await ledger.grant(tx, key.team, amount, note)
        await request_keys.add(tx, tables.idempotency_keys, [(key, entry_id)])
        details = {"amount": amount, "note": note, "entry_id": entry_id}
        await audit.add(tx, key.team, actor, "GRANT_CREDITS", details=details)
    return Account(
        account.granted + amount, account.available + amount, account.held, account.captured
    )
