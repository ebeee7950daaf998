"""Requests to drafts: every wrong field is named, nothing is looked up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from google.protobuf import json_format, struct_pb2

from contentshop.assets.v1 import backend_pb2
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.checks import MAX_ID, Violations, checking
from services.enqueue.domain import JobSpec, Labels
from services.enqueue.prompt import Prompt, PromptStrategy
from services.enqueue.references import DraftRef
from services.enqueue.usecases.enqueueing import Draft
from services.enqueue.workflows import WORKFLOWS, Workflow

GENERATION = "image_generation"
GENERATION_KEY = "apparel.catalog.v1"
EDIT = "image_edit"
EDIT_KEY = "image.edit.v1"
MAX_PRODUCTS = 4
MAX_POSITIVE = 6
MAX_NEGATIVE = 2
MAX_VARIATIONS = 10
MAX_PRIORITY = 100
MAX_LABEL_CHARS = 200
MAX_STYLE_CHARS = 1000
MAX_URL_CHARS = 2048
MAX_INPUT_BYTES = 16 * 1024

QUALITIES = {
    job_pb2.QUALITY_UNSPECIFIED: "fast",
    job_pb2.QUALITY_FAST: "fast",
    job_pb2.QUALITY_HIGH: "high",
}
FORMATS = {
    job_pb2.IMAGE_FORMAT_UNSPECIFIED: "png",
    job_pb2.IMAGE_FORMAT_PNG: "png",
    job_pb2.IMAGE_FORMAT_JPEG: "jpeg",
    job_pb2.IMAGE_FORMAT_WEBP: "webp",
}
STRATEGIES = {
    job_pb2.PROMPT_STRATEGY_UNSPECIFIED: None,  # as the service is set
    job_pb2.PROMPT_STRATEGY_NONE: PromptStrategy.NONE,
    job_pb2.PROMPT_STRATEGY_TEMPLATE: PromptStrategy.TEMPLATE,
    job_pb2.PROMPT_STRATEGY_GEMINI: PromptStrategy.GEMINI,
}
LABELS = (
    "product",
    "variant",
    "destination",
    "workspace_session_id",
    "template_name",
    "source_task_id",
)


def generation_draft(team: str, request: enqueue_pb2.EnqueueGenerationRequest) -> Draft:
    """The draft of a generation; InvalidArgumentError naming every wrong field."""
    with checking() as check:
        refs = product_refs(request.product_images, "product_images", check)
        refs += one_ref(request, "model_image", "model", check)
        refs += one_ref(request, "background_image", "background", check)
        style, kept = None, 0
        if request.HasField("moodboard"):
            refs += moodboard_refs(request.moodboard, "moodboard.", check)
            style, kept = request.moodboard.style_appendix, request.moodboard.moodboard_id
        spec = spec_of(team, request, GENERATION, GENERATION_KEY, check)
        labels = labels_of(request.labels, LABELS, "labels.", check)
        check.within(request.folder_id, 0, MAX_ID, "folder_id")
    assert spec is not None  # violations would have been raised
    spec = replace(spec, labels=labels, folder_id=request.folder_id, moodboard_id=kept)
    return Draft(spec, tuple(refs), None if kept else style)


def edit_draft(team: str, request: enqueue_pb2.EnqueueEditRequest) -> Draft:
    """The draft of an edit; InvalidArgumentError naming every wrong field."""
    with checking() as check:
        if not request.HasField("base_image"):
            check.add("base_image", "is needed")
        refs = one_ref(request, "base_image", "base", check)
        refs += one_ref(request, "reference_image", "reference", check)
        spec = spec_of(team, request, EDIT, EDIT_KEY, check)
        labels = labels_of(request.labels, LABELS, "labels.", check)
        check.within(request.folder_id, 0, MAX_ID, "folder_id")
    assert spec is not None  # violations would have been raised
    return Draft(replace(spec, labels=labels, folder_id=request.folder_id), tuple(refs))


def spec_of(
    team: str, request: Any, job_type: str, default_schema: str, check: Violations
) -> JobSpec | None:
    """What a request or a batch's settings say of their jobs, labels aside; None where wrong."""
    schema_key = request.schema_key or default_schema
    workflow = WORKFLOWS.get(schema_key)
    values: dict[str, Any] = {}
    if workflow is None or workflow.job_type != job_type:
        known = sorted(w.schema_key for w in WORKFLOWS.values() if w.job_type == job_type)
        check.add("schema_key", f"is unknown; known: {', '.join(known)}", "UNKNOWN_WORKFLOW")
    else:
        values = _values(request.input, workflow, check)
    check.one_of(request.quality, QUALITIES, "quality")
    check.one_of(request.format, FORMATS, "format")
    check.one_of(request.prompt_strategy, STRATEGIES, "prompt_strategy")
    check.within(request.priority, -MAX_PRIORITY, MAX_PRIORITY, "priority")
    count = 1
    if request.HasField("number_of_variations"):
        count = request.number_of_variations
        check.within(count, 1, MAX_VARIATIONS, "number_of_variations")
    if check.found:
        return None
    return JobSpec(
        team=team,
        type=job_type,
        quality=QUALITIES[request.quality],
        format=FORMATS[request.format],
        schema_key=schema_key,
        values=values,
        aspect_ratio=values.get("aspect_ratio", ""),
        count=count,
        inputs=(),
        moodboard=None,
        prompt=Prompt(strategy=STRATEGIES[request.prompt_strategy]),
        priority=request.priority,
        labels=Labels(),
        pin_token="",
    )


def labels_of(message: Any, names: Sequence[str], prefix: str, check: Violations) -> Labels:
    """The caller's own words, of those names, in a message that stands at the prefix."""
    for name in names:
        check.text(getattr(message, name), MAX_LABEL_CHARS, f"{prefix}{name}")
    return Labels(**{name: getattr(message, name) for name in names})


def _values(struct: struct_pb2.Struct, workflow: Workflow, check: Violations) -> dict[str, Any]:
    if struct.ByteSize() > MAX_INPUT_BYTES:
        check.add("input", f"must be at most {MAX_INPUT_BYTES} bytes")
        return {}
    if not _finite(struct):
        check.add("input", "must not contain NaN or infinity")
        return {}
    return workflow.parse(json_format.MessageToDict(struct), check)


def _finite(struct: struct_pb2.Struct) -> bool:
    """NaN and infinity, at any depth, are no JSON, and would fail the conversion."""
    return all(_finite_value(value) for value in struct.fields.values())


def _finite_value(value: struct_pb2.Value) -> bool:
    # No deeper than the parser goes, which is 100 messages.
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _finite(value.struct_value)
    if kind == "list_value":
        return all(_finite_value(item) for item in value.list_value.values)
    return kind != "number_value" or math.isfinite(value.number_value)


def moodboard_refs(moodboard: Any, prefix: str, check: Violations) -> list[DraftRef]:
    """The pictures of a moodboard given with a request: its fields stand at the prefix."""
    refs: list[DraftRef] = []
    for name, role, most in (
        ("positive_images", "moodboard", MAX_POSITIVE),
        ("negative_images", "avoid", MAX_NEGATIVE),
    ):
        images = getattr(moodboard, name)
        if check.check(len(images) <= most, f"{prefix}{name}", f"takes at most {most} images"):
            refs += _refs(images, f"{prefix}{name}", role, check)
    check.text(moodboard.style_appendix, MAX_STYLE_CHARS, f"{prefix}style_appendix")
    check.within(moodboard.moodboard_id, 0, MAX_ID, f"{prefix}moodboard_id")
    own = moodboard.positive_images or moodboard.negative_images or moodboard.style_appendix
    if moodboard.moodboard_id and own:
        check.add(
            f"{prefix}moodboard_id", "stands for pictures and words: give the one or the other"
        )
    return refs


def product_refs(
    images: Sequence[backend_pb2.ImageRef], path: str, check: Violations
) -> list[DraftRef]:
    """The products, 1 to 4; none where their number is wrong."""
    if not check.check(1 <= len(images) <= MAX_PRODUCTS, path, f"needs 1 to {MAX_PRODUCTS} images"):
        return []
    return _refs(images, path, "product", check)


def _refs(
    images: Sequence[backend_pb2.ImageRef], path: str, role: str, check: Violations
) -> list[DraftRef]:
    return [_ref(image, f"{path}[{n}]", role, check) for n, image in enumerate(images)]


def one_ref(request: Any, name: str, role: str, check: Violations) -> list[DraftRef]:
    """The image of one field, where it is given."""
    if not request.HasField(name):
        return []
    return [_ref(getattr(request, name), name, role, check)]


def _ref(image: backend_pb2.ImageRef, path: str, role: str, check: Violations) -> DraftRef:
    kind = image.WhichOneof("ref")
    if kind == "file_id":
        check.id(image.file_id, f"{path}.file_id")
    elif kind == "upload_url":
        ok = 0 < len(image.upload_url) <= MAX_URL_CHARS and image.upload_url.isprintable()
        if not ok:
            check.add(f"{path}.upload_url", "is not an upload URL", "IMAGE_NOT_AN_UPLOAD")
    else:
        check.add(path, "needs file_id or upload_url", "IMAGE_REFERENCE_EMPTY")
    return DraftRef(f"{path}.{kind}" if kind else path, role, image.file_id, image.upload_url)
