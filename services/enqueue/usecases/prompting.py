"""Building a job's prompt at enqueue, and keeping what a worker made of it."""

from __future__ import annotations

from collections.abc import Sequence

from services.enqueue.domain import Job, JobSpec
from services.enqueue.prompt import Prompt, PromptStrategy
from services.enqueue.store import images, prompts
from services.enqueue.usecases.deps import Deps
from services.enqueue.usecases.executing import Held, locked
from services.enqueue.workflows import WORKFLOWS
from services.enqueue.workflows.template_words import template_words


def build_prompt(
    draft: JobSpec, roles: Sequence[str], moodboard_style: str, default: PromptStrategy
) -> Prompt:
    """The prompt of a draft, enhanced where fixed words do.

    Args:
        draft: its workflow, its input and the strategy it asks for.
        roles: of its references, in order.
        moodboard_style: the moodboard's words.
        default: for a draft that asks for no strategy.
    """
    original = WORKFLOWS[draft.schema_key].prompt(draft.values, roles, moodboard_style)
    strategy = draft.prompt.strategy or default
    if strategy is not PromptStrategy.TEMPLATE:
        return Prompt(original, strategy)
    words = template_words(draft.schema_key, draft.values, roles)
    return Prompt(original, strategy, f"{original}\n{words}" if words else "", 0)


async def record_prompt(deps: Deps, held: Held, enhanced: str, enhance_ms: int) -> Job:
    """Settles a job's prompt, empty for the original; the job, with its images, as it stands.

    What is settled, or was never a worker's to enhance, stays as it is.

    Raises:
        LeaseLostError: the claim is not the job's any more.
    """
    async with deps.db.duty() as tx:
        job = await locked(tx, held)
        if job.spec.prompt.for_worker:
            job = await prompts.settle(tx, job.id, enhanced, enhance_ms)
        return await images.of_job(tx, job)
