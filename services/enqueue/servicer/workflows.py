"""EnqueueService: what jobs can be asked for."""

from __future__ import annotations

from typing import Any

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from services.enqueue.servicer.means import Doors
from services.enqueue.workflows import WORKFLOWS, Workflow


class WorkflowDoors(Doors):
    """Requests about workflows, the same for every team."""

    async def ListWorkflows(
        self, request: enqueue_pb2.ListWorkflowsRequest, context: Any
    ) -> enqueue_pb2.ListWorkflowsResponse:
        """The workflows and their input, by name."""
        return enqueue_pb2.ListWorkflowsResponse(
            workflows=[_workflow_message(WORKFLOWS[key]) for key in sorted(WORKFLOWS)]
        )


def _workflow_message(workflow: Workflow) -> enqueue_pb2.Workflow:
    return enqueue_pb2.Workflow(
        schema_key=workflow.schema_key,
        description=workflow.description,
        type=job_pb2.JobType.Value(f"JOB_TYPE_{workflow.job_type.upper()}"),
        fields=[
            enqueue_pb2.WorkflowField(
                name=field.name,
                description=field.description,
                required=field.required,
                choices=field.choices,
                max_chars=field.max_chars,
            )
            for field in workflow.fields
        ],
    )
