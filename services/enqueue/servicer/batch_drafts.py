"""Batch requests to drafts: every wrong field is named by its path, nothing is looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2
from libs.common.checks import Violations, checking
from libs.common.errors import FieldViolation, InvalidArgumentError
from services.enqueue.domain import JobSpec, Labels
from services.enqueue.references import DraftRef
from services.enqueue.servicer.drafts import (
    GENERATION,
    GENERATION_KEY,
    MAX_LABEL_CHARS,
    labels_of,
    moodboard_refs,
    one_ref,
    product_refs,
    spec_of,
)
from services.enqueue.usecases.batches import BatchDraft
from services.enqueue.usecases.enqueueing import Draft

MAX_VARIANTS = 100
SHARED_LABELS = ("destination", "workspace_session_id", "template_name")
VARIANT_LABELS = ("product", "variant", "source_task_id")

Request = enqueue_pb2.EnqueueBatchRequest | enqueue_pb2.EstimateBatchRequest


def batch_draft(team: str, request: Request) -> BatchDraft:
    """The draft of a batch: one job per variant, the settings' references shared.

    Raises:
        InvalidArgumentError: BATCH_TOO_LARGE, before anything else; else naming every wrong field,
            such as `variants[17].product_images[2]` or `settings.model_image`.
    """
    _check_size(len(request.variants))
    with checking() as check:
        check.text(request.name, MAX_LABEL_CHARS, "name")
        settings = _settings(team, request.settings, check)
        variants = [
            _variant(variant, f"variants[{n}]", check) for n, variant in enumerate(request.variants)
        ]
        _check_different(request.variants, check)
    assert settings is not None  # violations would have been raised
    spec, shared, style = settings
    return BatchDraft(
        request.name,
        tuple(
            Draft(
                spec=replace(spec, labels=_joined(spec.labels, labels), variant_index=index),
                refs=(*products, *shared),
                moodboard_style=style,
                moodboard_field="settings.moodboard_id",
            )
            for index, (labels, products) in enumerate(variants, start=1)
        ),
    )


def _check_size(variants: int) -> None:
    """Looks at the number alone: millions of empty variants fit into one message."""
    if variants > MAX_VARIANTS:
        text = f"takes at most {MAX_VARIANTS}"
        raise InvalidArgumentError(
            f"variants {text}",
            reason="BATCH_TOO_LARGE",
            metadata={"maxVariants": str(MAX_VARIANTS)},
            violations=[FieldViolation("variants", text, "BATCH_TOO_LARGE")],
        )
    with checking() as check:
        check.check(variants > 0, "variants", f"needs 1 to {MAX_VARIANTS}")


def _settings(
    team: str, settings: batch_pb2.BatchSettings, check: Violations
) -> tuple[JobSpec, list[DraftRef], str | None] | None:
    """What all jobs share: the spec, the references, the moodboard's words; None where wrong."""
    mine = Violations()
    refs = one_ref(settings, "model_image", "model", mine)
    refs += one_ref(settings, "background_image", "background", mine)
    refs += moodboard_refs(settings, "", mine)
    labels = labels_of(settings, SHARED_LABELS, "", mine)
    spec = spec_of(team, settings, GENERATION, GENERATION_KEY, mine)
    for v in mine.found:
        check.add(_of_the_reference(f"settings.{v.field}"), v.description, v.reason)
    if spec is None:
        return None
    own = bool(settings.positive_images or settings.negative_images or settings.style_appendix)
    return (
        replace(spec, labels=labels, moodboard_id=settings.moodboard_id),
        [replace(ref, field=_of_the_reference(f"settings.{ref.field}")) for ref in refs],
        settings.style_appendix if own else None,
    )


def _variant(
    variant: batch_pb2.BatchVariant, path: str, check: Violations
) -> tuple[Labels, list[DraftRef]]:
    mine = Violations()
    products = product_refs(variant.product_images, f"{path}.product_images", mine)
    for v in mine.found:
        check.add(_of_the_reference(v.field), v.description, v.reason)
    labels = labels_of(variant, VARIANT_LABELS, f"{path}.", check)
    return labels, [replace(ref, field=_of_the_reference(ref.field)) for ref in products]


def _of_the_reference(field: str) -> str:
    """A reference of a batch is named as a whole, whichever form it has."""
    return field.removesuffix(".file_id").removesuffix(".upload_url")


def _check_different(variants: Sequence[batch_pb2.BatchVariant], check: Violations) -> None:
    """Variants that have a label each have their own: it names their folder."""
    seen: dict[str, int] = {}
    for n, variant in enumerate(variants):
        if not variant.variant:
            continue
        first = seen.setdefault(variant.variant, n)
        if first != n:
            check.add(
                f"variants[{n}].variant", f"is that of variants[{first}]", "DUPLICATE_VARIANT"
            )


def _joined(shared: Labels, own: Labels) -> Labels:
    return replace(
        shared, product=own.product, variant=own.variant, source_task_id=own.source_task_id
    )
