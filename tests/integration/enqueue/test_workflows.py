"""ListWorkflows says what EnqueueGeneration and EnqueueEdit take, no more and no less."""

from __future__ import annotations

from typing import Any

import pytest

from contentshop.assets.v1 import backend_pb2
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.errors import InvalidArgumentError
from tests.integration.enqueue.house import House, Team, generation


async def list_workflows(team: Team) -> dict[str, enqueue_pb2.Workflow]:
    answer = await team.call("ListWorkflows", enqueue_pb2.ListWorkflowsRequest())
    return {workflow.schema_key: workflow for workflow in answer.workflows}


async def enqueue(team: Team, workflow: enqueue_pb2.Workflow, values: dict[str, Any]) -> Any:
    if workflow.type == job_pb2.JOB_TYPE_IMAGE_EDIT:
        edit = enqueue_pb2.EnqueueEditRequest(
            schema_key=workflow.schema_key, base_image=backend_pb2.ImageRef(file_id=1)
        )
        edit.input.update(values)
        return (await team.call("EnqueueEdit", edit)).job
    request = generation(schema_key=workflow.schema_key, input=values)
    return (await team.call("EnqueueGeneration", request)).job


def right_values(workflow: enqueue_pb2.Workflow) -> dict[str, Any]:
    """The last choice of each field, or as many characters as it takes."""
    return {f.name: f.choices[-1] if f.choices else "x" * f.max_chars for f in workflow.fields}


async def test_what_is_listed_is_taken(house: House) -> None:
    team = house.team()
    listed = await list_workflows(team)
    assert list(listed) == ["apparel.catalog.v1", "image.edit.v1"]
    for workflow in listed.values():
        assert workflow.description
        assert all(field.description for field in workflow.fields)
        assert all(bool(field.choices) != bool(field.max_chars) for field in workflow.fields)
        values = right_values(workflow)
        job = await enqueue(team, workflow, values)
        assert (job.type, dict(job.input)) == (workflow.type, values)


async def test_what_is_not_listed_is_refused_by_name(house: House) -> None:
    team = house.team()
    for workflow in (await list_workflows(team)).values():
        for field in workflow.fields:
            wrong = "no such choice" if field.choices else "x" * (field.max_chars + 1)
            with pytest.raises(InvalidArgumentError) as refused:
                await enqueue(team, workflow, right_values(workflow) | {field.name: wrong})
            assert [v.field for v in refused.value.violations] == [f"input.{field.name}"]
        required = [field.name for field in workflow.fields if field.required]
        with pytest.raises(InvalidArgumentError) as refused:
            await enqueue(team, workflow, {"surprise": 1})
        named = [v.field for v in refused.value.violations]
        assert named == ["input.surprise", *(f"input.{name}" for name in required)]
