"""The matrix: every field that names a thing by unknown, another team's, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from google.rpc import error_details_pb2, status_pb2

from contentshop.enqueue.v1 import execution_pb2
from libs.common.status import DETAILS_KEY
from tests.attacks import belongings
from tests.attacks.belongings import NOBODYS, Belongings
from tests.attacks.house import UPLOAD_HOST, Answer, House, headers_for, open_house
from tests.attacks.id_fields import IdField, id_fields
from tests.attacks.samples import sample
from tests.support.databases import DatabaseUrls

TEAM, OTHER = "red", "blue"
FORMS = (
    "/api/uploads/{}/file",
    f"https://{UPLOAD_HOST}/api/uploads/{{}}/file",
    "/api/uploads/{}/file?width=10",
)
# Reasons of the rejection of a whole request for what it names.
NOT_THERE = {"IMAGE_NOT_FOUND", "MOODBOARD_NOT_FOUND", "FOLDER_NOT_FOUND", "BAD_IMAGE_REFERENCE"}

# Fields that look like the name of a thing of ours and are none that a team could reach with.
_OWN_KEY = "the caller's own key; each team has its own (test_a_request_id_is_of_one_team)"
_WORKERS = "a worker's word, kept as it says it: workers are trusted with every team"
EXCEPTIONS: dict[str, str] = {
    "request_id": _OWN_KEY,
    "source_task_id": "a label of the caller's",
    "workspace_session_id": "a label of the caller's",
    "schema_key": "names a workflow, the same for all",
    "page_token": "signed for one list of one team (test_page_tokens_are_of_one_list)",
    "after_cursor": "a position among the team's own rows "
    "(test_a_team_hears_of_all_its_jobs_from_now_on_and_of_no_others)",
    "claim_id": "the worker's own key of a claim",
    "pin_token": "enqueue's own word for a job's pins",
    "blob_key": "of the team by its shape (test_an_unwritten_zip_does_not)",
    "AssetsService.PutVariants variants[].id": "the shop's own; what is put is the team's",
    "AssetsBackendService.StoreGenerated header.job_id": "assets knows no jobs, but ended ones",
    "AssetsBackendService.StoreGenerated header.inputs[].file_id": _WORKERS,
    "AssetsBackendService.ListUnheardEndings jobs[].job_id": "assets knows no jobs, but ended "
    "ones (test_a_team_hears_nothing_of_anothers_endings)",
    "AssetsBackendService.StoreArchive job_id": "assets knows no jobs, but ended ones",
    "AssetsBackendService.StoreArchive batch_id": "what the zip is of, as the packager says",
    "AssetsBackendService.StoreArchive folder_id": "what the zip is of, as the packager says",
    "ExecutionService.RecordImage file_id": _WORKERS,
    "ExecutionService.RecordArchive file_id": "as the packager says: it has just stored it",
}
# Fields of another kind than their name says.
KINDS = {"AssetsBackendService.ResolveArchive file_id": "archive_file"}

_FILTER = "a filter: nothing is found, which is no error"
_LEASE = "nobody holds a lease of it"
# Rows that are answered neither by NOT_FOUND nor by the rejection of the whole request.
OTHERWISE: dict[str, tuple[str, str]] = {
    "AssetsService.ListImageCandidates variant_ids[]": ("OK", _FILTER),
    "AssetsService.ListFiles job_id": ("OK", _FILTER),
    "AssetsService.ListFolders batch_id": ("OK", _FILTER),
    "EnqueueService.ListJobs batch_id": ("OK", _FILTER),
    "EnqueueService.ListCreditEntries job_id": ("OK", _FILTER),
    "OpsService.ListAuditEntries job_id": ("OK", _FILTER),
    "ExecutionService.RenewLeases leases[].job_id": ("OK", "it is among the lost ones"),
    **{
        f"ExecutionService.{name} job_id": ("FAILED_PRECONDITION", _LEASE)
        for name in ("RecordImage", "RecordImageFailure", "RecordPrompt", "AcquireCalls")
    },
    "ExecutionService.FinishJob job_id": ("FAILED_PRECONDITION", _LEASE),
    "ExecutionService.ReleaseJob job_id": ("FAILED_PRECONDITION", _LEASE),
}
# Fields that may be left out: 0 names nothing.
OPTIONAL = {
    "AssetsService.ListFiles job_id",
    "AssetsService.ListFolders batch_id",
    "AssetsService.CreateMoodboard content.background_file_id",
    "AssetsService.CreateMoodboard content.model_file_id",
    "AssetsService.UpdateMoodboard content.background_file_id",
    "AssetsService.UpdateMoodboard content.model_file_id",
    "AssetsService.PutVariants variants[].image_file_id",
    "AssetsBackendService.ResolveImages moodboard_id",
    "AssetsBackendService.ResolveImages folder_id",
    "EnqueueService.EnqueueGeneration moodboard.moodboard_id",
    "EnqueueService.EnqueueGeneration folder_id",
    "EnqueueService.EnqueueEdit folder_id",
    "EnqueueService.ListJobs batch_id",
    "EnqueueService.EnqueueBatch settings.moodboard_id",
    "EnqueueService.EstimateBatch settings.moodboard_id",
    "EnqueueService.ListCreditEntries job_id",
    "OpsService.ListAuditEntries job_id",
}
# Jobs that are locked by their id alone; whose they are is looked at before a word is said.
COMPARED_AGAIN = {
    "EnqueueService.CancelJob job_id",
    "EnqueueService.ExplainJob job_id",
    "EnqueueService.ReviewJob job_id",
    "ExecutionService.RecordArchive job_id",
}
# Cases that a row does not have, and why.
WITHOUT: dict[str, tuple[str, str]] = {
    "AssetsService.ListImageCandidates variant_ids[]": ("deleted", "variants are not deleted"),
    "EnqueueService.ListCreditEntries job_id": ("deleted", "entries outlive their jobs"),
    "OpsService.ListAuditEntries job_id": ("deleted", "entries outlive their jobs"),
}


@dataclass(frozen=True)
class Owners:
    """Whose things the cases of a row ask for."""

    own: Belongings
    theirs: Belongings
    deleted: Belongings


@dataclass(frozen=True)
class Table:
    """A house with everybody's things in it."""

    house: House
    owners: Owners

    async def ask(self, row: IdField, whose: Belongings, form: str = "") -> Answer:
        """The answer to a right request that names somebody's thing."""
        if row.kind == "upload_url" and not form:
            form = FORMS[0]
        return await self.ask_value(row, _value(row, whose, form))

    async def ask_value(self, row: IdField, value: int | str) -> Answer:
        """The answer to a right request but for this field."""
        request = sample(row.method, self.owners.own, TEAM)
        row.put(request, value)
        headers = headers_for(row.method, TEAM)
        answer = await self.house.call(row.method, request.SerializeToString(), headers)
        return _without_the_id(row, answer, value)

    async def cases(self, row: IdField, forms: Sequence[str]) -> dict[str, Answer]:
        """The answers of a row; an upload URL is asked for in each of the forms."""
        found = {}
        for form in forms if row.kind == "upload_url" else ("",):
            for case, whose in self.whose(row).items():
                found[f"{case} {form}".strip()] = await self.ask(row, whose, form)
        return found

    async def leaks(self, forms: Sequence[str] = FORMS[:1]) -> dict[str, str]:
        """Rows that tell another team's or a deleted thing from one that never was."""
        wrong = {}
        for row in ROWS:
            cases = await self.cases(row, forms)
            answers = set(cases.values())
            if len(answers) != 1 or not all(_refused_as_expected(row, a) for a in answers):
                wrong[row.name] = "; ".join(f"{case}: {told(a)}" for case, a in cases.items())
        return wrong

    def whose(self, row: IdField) -> dict[str, Belongings]:
        """The cases of a row."""
        cases = {"unknown": NOBODYS, "theirs": self.owners.theirs, "deleted": self.owners.deleted}
        cases.pop(WITHOUT.get(row.name, ("", ""))[0], None)
        if not of_one_team(row):
            cases.pop("theirs")  # its callers act for all teams
        return cases


def _without_the_id(row: IdField, answer: Answer, asked: int | str) -> Answer:
    """RenewLeases names the jobs that it was asked for; else the answer as it is."""
    if row.name != "ExecutionService.RenewLeases leases[].job_id" or not answer.messages:
        return answer
    response = execution_pb2.RenewLeasesResponse.FromString(answer.messages[0])
    assert list(response.lost_job_ids) == [asked]
    del response.lost_job_ids[:]
    return replace(answer, messages=(response.SerializeToString(),))


def _value(row: IdField, whose: Belongings, form: str) -> int | str:
    found = whose.of(KINDS.get(row.name) or row.kind or "")
    return form.format(found) if form else found


def of_one_team(row: IdField) -> bool:
    """Whether the RPC acts for one team: its token's, or the one it names."""
    fields = row.method.descriptor.input_type.fields_by_name
    names_one = "team" in fields and row.method.scopes != ("ops",)
    return row.method.scopes[0] == "team" or names_one


def of_a_lease(row: IdField) -> bool:
    """Whether only a job's holder is answered otherwise than for one that never was."""
    return row.name in OTHERWISE and row.method.service.name == "ExecutionService"


def excepted(field: IdField) -> str | None:
    """The key of a field's exception."""
    return next((k for k in (field.name, field.steps[-1].name) if k in EXCEPTIONS), None)


ROWS = [field for field in id_fields() if field.kind is not None and excepted(field) is None]


def _refused_as_expected(row: IdField, answer: Answer) -> bool:
    """NOT_FOUND, or the whole request rejected with this field named, or as OTHERWISE says."""
    if row.name in OTHERWISE:
        return answer.code == OTHERWISE[row.name][0]
    if answer.code == "NOT_FOUND":
        return reason_of(answer) == "RESOURCE_NOT_FOUND"
    return (
        answer.code == "INVALID_ARGUMENT"
        and reason_of(answer) in NOT_THERE
        and set(fields_of(answer)) <= row.wrong
    )


def _details(answer: Answer) -> status_pb2.Status:
    raw = dict(answer.metadata).get(DETAILS_KEY, b"")
    assert isinstance(raw, bytes)
    return status_pb2.Status.FromString(raw)


def reason_of(answer: Answer) -> str:
    """The reason of a refusal."""
    info = error_details_pb2.ErrorInfo()
    for detail in _details(answer).details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def told(answer: Answer) -> str:
    """An answer in a line, for who reads a failure."""
    sizes = [len(message) for message in answer.messages]
    return f"{answer.code} {reason_of(answer)} {fields_of(answer)} {answer.message} {sizes}"


def fields_of(answer: Answer) -> list[str]:
    """The fields that a refusal names."""
    bad = error_details_pb2.BadRequest()
    for detail in _details(answer).details:
        if detail.Unpack(bad):
            return [violation.field for violation in bad.field_violations]
    return []


@asynccontextmanager
async def laid_table(urls: Mapping[str, DatabaseUrls], folder: Path) -> AsyncIterator[Table]:
    """A house where two teams have one of everything, and nothing is made any more."""
    async with open_house(urls, folder) as house:
        for team in (TEAM, OTHER):
            await belongings.grant(house, team)
        # The doomed go first: everything there is then is made old.
        doomed = await belongings.make(house, TEAM)
        deleted = await belongings.remove(house, TEAM, doomed)
        async with asyncio.TaskGroup() as group:
            own, theirs = [
                group.create_task(belongings.make(house, team)) for team in (TEAM, OTHER)
            ]
        await belongings.pause_lanes(house)
        yield Table(house, Owners(own.result(), theirs.result(), deleted))
