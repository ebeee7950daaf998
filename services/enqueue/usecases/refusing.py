"""What may refuse a request inside the transaction that would store it, under its team's lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from libs.common.db import Tx
from libs.common.errors import ContentshopError, FailedPreconditionError
from services.enqueue.domain import Job, JobSpec
from services.enqueue.store import retries
from services.enqueue.usecases.crediting import Purse, open_purse
from services.enqueue.usecases.deps import Deps

ALREADY_RETRIED = "JOB_ALREADY_RETRIED"
Specs = Sequence[JobSpec]


class Refusals:
    """Decides over the requests of one group, in order; what one takes counts for the next.

    Whatever a check must know is read at once for the whole group, by `read`.
    """

    def __init__(self, retried: dict[int, int], purse: Purse) -> None:
        self._retries = retried
        self._purse = purse
        self._unnamed: list[tuple[FailedPreconditionError, int]] = []

    @classmethod
    async def read(cls, tx: Tx, deps: Deps, group: Sequence[Specs]) -> Refusals:
        """With all that the checks must know of these requests' jobs; locks their accounts."""
        sources = {spec.retry_of for specs in group for spec in specs if spec.retry_of}
        retried = await retries.retries_of(tx, sources)
        teams = {spec.team for specs in group for spec in specs}
        return cls(retried, await open_purse(tx, deps, teams))

    @property
    def paying(self) -> frozenset[str]:
        """The teams whose jobs hold credits."""
        return self._purse.paying

    def judge(self, specs: Specs) -> ContentshopError | None:
        """Why a request is refused; None where it is to be stored, and counts from now on."""
        team, required = specs[0].team, sum(spec.count for spec in specs)
        refusal = self._retried(specs) or self._purse.refusal(team, required)
        if refusal is None:
            self._retries |= {spec.retry_of: 0 for spec in specs if spec.retry_of}
            self._purse.take(team, required)
        return refusal

    def stored(self, added: Iterable[Job]) -> None:
        """Tells the refusals which retries of this same group they met."""
        made = {job.spec.retry_of: job.id for job in added}
        for refusal, source in self._unnamed:
            refusal.metadata["retryJobId"] = str(made[source])

    def _retried(self, specs: Specs) -> FailedPreconditionError | None:
        """A job has one retry at a time; one that was canceled does not count."""
        for spec in specs:
            if spec.retry_of not in self._retries:
                continue
            refusal = already_retried(self._retries[spec.retry_of])
            if not self._retries[spec.retry_of]:
                self._unnamed.append((refusal, spec.retry_of))
            return refusal
        return None


def already_retried(retry_id: int) -> FailedPreconditionError:
    """The refusal of a second retry; the id is 0 while it is not known."""
    metadata = {"retryJobId": str(retry_id)} if retry_id else {}
    return FailedPreconditionError(
        "the job was run again already", reason=ALREADY_RETRIED, metadata=metadata
    )
