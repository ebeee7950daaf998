"""Whether accounts, ledger and jobs agree: compared step by step, each difference told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from services.enqueue.store import credit_checks
from services.enqueue.store.credit_checks import AccountFigures, JobFigures
from services.enqueue.usecases.deps import Deps

log = structlog.get_logger()

# A ledger of a million entries is summed in half a second; a statement may take ten.
ACCOUNTS_AT_ONCE = 5
JOBS_AT_ONCE = 1000
MAX_DIFFERENCES = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """What does not add up; job 0: the account as a whole."""

    team: str
    job_id: int
    message: str


@dataclass(frozen=True, slots=True)
class CreditCheck:
    """What a whole comparison found."""

    accounts: int
    differences: list[Difference]


class Reconciler:
    """Compares accounts, ledger and jobs, a bounded step at a time: accounts first, then jobs."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._team: str | None = ""  # None: the accounts are done
        self._job_id = 0
        self.accounts = 0

    async def step(self) -> tuple[list[Difference], bool]:
        """The differences of the next step, and whether there is another."""
        async with self._deps.db.read_all() as tx:
            if self._team is not None:
                figures = await credit_checks.accounts(tx, self._team, ACCOUNTS_AT_ONCE)
                self.accounts += len(figures)
                full = len(figures) == ACCOUNTS_AT_ONCE
                self._team = figures[-1].team if full else None
                return [found for each in figures for found in account_differences(each)], True
            of_jobs, last = await credit_checks.jobs(tx, self._job_id, JOBS_AT_ONCE)
        if last is None:
            return [], False
        self._job_id = last
        return [found for each in of_jobs for found in job_differences(each)], True


async def check_credits(deps: Deps) -> CreditCheck:
    """Compares everything once; the differences, at most MAX_DIFFERENCES."""
    reconciler = Reconciler(deps)
    differences: list[Difference] = []
    more = True
    while more and len(differences) < MAX_DIFFERENCES:
        found, more = await reconciler.step()
        differences += found
    return CreditCheck(reconciler.accounts, differences[:MAX_DIFFERENCES])


class ReconcileDuty:
    """Compares everything again and again, and says each difference as an error."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._reconciler = Reconciler(deps)

    async def round(self) -> bool:
        """One bounded step; True until everything was compared."""
        found, more = await self._reconciler.step()
        for difference in found:
            log.error(
                "credits.difference",
                team=difference.team,
                job_id=difference.job_id,
                difference=difference.message,
            )
        if not more:
            self._reconciler = Reconciler(self._deps)
        return more


def account_differences(figures: AccountFigures) -> Iterator[Difference]:
    """What of an account its ledger or its jobs do not bear out."""
    for name, account, proof, of in (
        ("granted", figures.granted, figures.grants, "the ledger's grants"),
        (
            "available",
            figures.available,
            figures.grants - figures.holds + figures.releases,
            "the ledger's grants, less holds, with releases",
        ),
        ("held", figures.held, figures.live_held, "the jobs that have not ended"),
        (
            "captured",
            figures.captured,
            figures.captures - figures.live_done,
            "the ledger's captures of ended jobs",
        ),
    ):
        if account != proof:
            yield Difference(figures.team, 0, f"{name} is {account}, {of} come to {proof}")


def job_differences(figures: JobFigures) -> Iterator[Difference]:
    """What of a job's credits its entries do not bear out."""
    ended_with = figures.held - figures.done if figures.ended else None
    for name, job, proof, of in (
        ("credits held", figures.held, figures.count, "its images"),
        ("credits held", figures.held, figures.holds, "its hold in the ledger"),
        ("images done", figures.done, figures.captures, "its captures in the ledger"),
        ("credits released", figures.released, ended_with, "held less done, at the end"),
        ("credits released", figures.released or 0, figures.releases, "its release in the ledger"),
    ):
        if job != proof:
            yield Difference(figures.team, figures.id, f"{name}: {job}; {of}: {proof}")
