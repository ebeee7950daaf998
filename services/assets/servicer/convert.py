"""Domain objects to protobuf."""

from __future__ import annotations

from datetime import datetime

from google.protobuf import timestamp_pb2

from contentshop.assets.v1 import assets_pb2, backend_pb2
from services.assets.domain import File, Folder, Moodboard, MoodboardContent, Variant
from services.assets.usecases.resolving import ReadableFile


def timestamp(at: datetime) -> timestamp_pb2.Timestamp:
    """A Timestamp."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(at)
    return stamp


def file_message(file: File, *, with_provenance: bool = True) -> assets_pb2.File:
    """A File; long lists leave out what only GetFile's caller will look at."""
    content, slot = file.content, file.slot
    return assets_pb2.File(
        id=file.id,
        kind=assets_pb2.FileKind.Value(f"FILE_KIND_{file.kind}"),
        filename=file.filename,
        content_type=content.content_type,
        size_bytes=content.size_bytes,
        width=content.width,
        height=content.height,
        sha256=content.sha256,
        create_time=timestamp(file.created_at),
        upload_url=file.upload_url,
        job_id=slot.job_id,
        image_index=slot.image_index,
        model=slot.model,
        provenance=_provenance(file) if with_provenance and file.derived else None,
        variant=file.variant,
    )


def _provenance(file: File) -> assets_pb2.Provenance:
    making = file.making
    return assets_pb2.Provenance(
        source_task_id=file.source_task_id,
        attempt=file.slot.attempt,
        inputs=[
            assets_pb2.ProvenanceInput(role=one.role, file_id=one.file_id, sha256=one.sha256)
            for one in making.inputs
        ],
        prompt_tokens=making.prompt_tokens,
        output_tokens=making.output_tokens,
        total_tokens=making.total_tokens,
        cost_micros=making.cost_micros,
        batch_id=file.batch_id,
    )


def folder_message(folder: Folder) -> assets_pb2.Folder:
    """A Folder."""
    return assets_pb2.Folder(
        id=folder.id,
        name=folder.name,
        kind=assets_pb2.FolderKind.Value(f"FOLDER_KIND_{folder.kind}"),
        batch_id=folder.batch_id,
        variant_index=folder.variant_index,
        file_count=folder.file_count,
        create_time=timestamp(folder.created_at),
    )


def moodboard_message(moodboard: Moodboard) -> assets_pb2.Moodboard:
    """A Moodboard."""
    return assets_pb2.Moodboard(
        id=moodboard.id,
        content=moodboard_content(moodboard.content),
        revision=moodboard.revision,
        create_time=timestamp(moodboard.created_at),
        update_time=timestamp(moodboard.updated_at),
    )


def moodboard_content(content: MoodboardContent) -> assets_pb2.MoodboardContent:
    """A MoodboardContent."""
    return assets_pb2.MoodboardContent(
        name=content.name,
        positive_file_ids=content.positive_file_ids,
        negative_file_ids=content.negative_file_ids,
        background_file_id=content.background_file_id,
        model_file_id=content.model_file_id,
        style_appendix=content.style_appendix,
    )


def variant_message(variant: Variant) -> assets_pb2.Variant:
    """A Variant."""
    return assets_pb2.Variant(
        id=variant.id,
        product=variant.product,
        title=variant.title,
        image_file_id=variant.image_file_id,
        update_time=timestamp(variant.updated_at),
    )


def resolved_image(image: ReadableFile) -> backend_pb2.ResolvedImage:
    """A ResolvedImage."""
    content = image.file.content
    return backend_pb2.ResolvedImage(
        file_id=image.file.id,
        blob_url=image.blob_url,
        content_type=content.content_type,
        size_bytes=content.size_bytes,
        width=content.width,
        height=content.height,
        sha256=content.sha256,
        crc32=content.crc32,
    )
