"""What the doors of enqueue are given."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.paging import PageTokens
from services.enqueue.usecases.batches import EnqueueBatch
from services.enqueue.usecases.deps import Deps
from services.enqueue.usecases.enqueueing import EnqueueJob
from services.enqueue.usecases.retrying import Retry
from services.enqueue.watch import WatchHub


@dataclass(frozen=True, slots=True)
class Means:
    """The use cases and what they share."""

    deps: Deps
    enqueue: EnqueueJob
    batches: EnqueueBatch
    retry: Retry
    hub: WatchHub
    tokens: PageTokens


class Doors:
    """Some RPCs of a service: the servicer of the whole is made of such parts, one per noun."""

    def __init__(self, means: Means) -> None:
        self._means = means
