"""Workflows: what a `schema_key` names. One readable module each.

A workflow module declares the fields of its input once, for reading, docs and ListWorkflows,
and has `prompt` and `image_prompt`. To add one, write its module and list it in `WORKFLOWS`.
"""

from __future__ import annotations

from services.enqueue.workflows import apparel_catalog_v1, image_edit_v1
from services.enqueue.workflows.base import Workflow

WORKFLOWS: dict[str, Workflow] = {
    workflow.schema_key: workflow
    for workflow in (apparel_catalog_v1.WORKFLOW, image_edit_v1.WORKFLOW)
}

__all__ = ["WORKFLOWS", "Workflow"]
