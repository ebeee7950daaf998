"""How a generator try can end, and what follows: the one table of it.

Standard library only: enqueue, worker and the CLI share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The typed failures of an image. A success has no outcome: it has a file."""

    PROMPT_BLOCKED = "PROMPT_BLOCKED"
    OUTPUT_BLOCKED = "OUTPUT_BLOCKED"
    NO_IMAGE = "NO_IMAGE"
    TEXT_ONLY = "TEXT_ONLY"
    BAD_INPUT = "BAD_INPUT"
    INVALID_OUTPUT = "INVALID_OUTPUT"
    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    TIMED_OUT = "TIMED_OUT"
    UNAUTHORIZED = "UNAUTHORIZED"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    WORKER_LOST = "WORKER_LOST"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Policy:
    """What follows an outcome.

    Attributes:
        tries: generator calls for one image within one attempt, this outcome included.
        hands_back: when the tries are used up, the job goes back to the queue with a pause
            instead of failing the image (until the job's max_attempts). The same for faults
            that are not the job's own.
        burns_attempt: whether that hand-back counts against max_attempts.
    """

    tries: int
    hands_back: bool = False
    burns_attempt: bool = True


# No failure is ever charged: a credit is captured only with a DONE image.
POLICIES: dict[Outcome, Policy] = {
    Outcome.PROMPT_BLOCKED: Policy(tries=1),  # the same words are blocked again
    Outcome.OUTPUT_BLOCKED: Policy(tries=1),
    Outcome.NO_IMAGE: Policy(tries=2),
    Outcome.TEXT_ONLY: Policy(tries=2),
    Outcome.BAD_INPUT: Policy(tries=1),
    Outcome.INVALID_OUTPUT: Policy(tries=2),
    Outcome.RATE_LIMITED: Policy(tries=3, hands_back=True, burns_attempt=False),
    Outcome.OVERLOADED: Policy(tries=3, hands_back=True),
    Outcome.TIMED_OUT: Policy(tries=2, hands_back=True),
    Outcome.UNAUTHORIZED: Policy(tries=1, hands_back=True, burns_attempt=False),
    Outcome.STORAGE_UNAVAILABLE: Policy(tries=5, hands_back=True),
    Outcome.WORKER_LOST: Policy(tries=1),
    Outcome.INTERNAL: Policy(tries=2),
}
