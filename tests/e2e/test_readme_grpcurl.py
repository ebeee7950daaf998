"""The grpcurl lines of README.md, docs/USING.md and docs/OPERATIONS.md, run as they stand."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.house import ROOT, House, house
from tests.support.shown_lines import Block, run_blocks

README = ROOT / "README.md"
USING = ROOT / "docs" / "USING.md"
OPERATIONS = ROOT / "docs" / "OPERATIONS.md"


@dataclass(frozen=True)
class Page:
    """A page that was run, and where."""

    folder: Path
    blocks: list[Block]

    def said_of(self, method: str) -> str:
        """What the blocks said that call the method, or nothing."""
        called = (b for b in self.blocks if f"/{method}" in b.text and not b.refused)
        return "\n".join(block.said for block in called)

    def assert_refusals_are_as_shown(self) -> None:
        """Every refusal stands on the page as it comes."""
        refused = [block for block in self.blocks if block.refused]
        assert refused
        for block in refused:
            assert block.said.strip() == block.shown.strip()


@dataclass(frozen=True)
class Shop:
    """A house, and a folder like the repository's root to run pages in."""

    house: House
    folder: Path

    async def run(self, page: Path, **more: str) -> Page:
        """The blocks of the page, in order, in one shell: later ones use variables of earlier."""
        services = ("enqueue", "assets", "packager", "worker")
        variables = {
            **{name.upper(): self.house.ready[name] for name in services},
            "CONTENTSHOP_DATA": str(self.house.data),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }
        return Page(self.folder, await run_blocks(page, "grpcurl", variables | more, self.folder))


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """Images are slow, one after another: the cancel has the seconds of ten to come in time."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("examples", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    slow = {"OFFLINE_DELAY_SECONDS": "0.8", "WORKER_IMAGES_AT_ONCE": "1"}
    async with house(folder / "data", env=slow) as running:
        yield Shop(running, folder)


@pytest.fixture(scope="module")
async def readme(shop: Shop) -> Page:
    """README.md."""
    return await shop.run(README)


@pytest.fixture(scope="module")
async def using(shop: Shop, readme: Page) -> Page:  # noqa: ARG001 - one page after the other
    """docs/USING.md."""
    return await shop.run(USING)


@pytest.fixture(scope="module")
async def operations(shop: Shop, using: Page) -> Page:
    """docs/OPERATIONS.md, about the first job of docs/USING.md."""
    job = re.search(r'"job_id": "(\d+)"', using.said_of("ListJobEvents"))
    return await shop.run(OPERATIONS, JOB=job[1] if job else "1")


def test_the_readme_shows_a_job_from_the_request_to_the_zip(readme: Page) -> None:
    watched = readme.said_of("WatchJob")
    assert watched.count('"final": true') == 1
    assert "JOB_EVENT_KIND_ARCHIVE_READY" in watched
    assert "WAIT_REASON_" in readme.said_of("ExplainJob")
    archive = readme.said_of("GetArchive")
    assert "ARCHIVE_STATE_READY" in archive
    assert re.search(r'"filename": "generation-\d+-\d+\.zip"', archive)
    assert "image-3.png" in archive
    readme.assert_refusals_are_as_shown()


def test_uploads_edits_and_downloads(using: Page) -> None:
    assert '"upload_url": "/api/uploads/' in using.said_of("ListFiles")
    assert "image.edit.v1" in using.said_of("ListWorkflows")
    assert (using.folder / "out" / "made.png").read_bytes().startswith(b"\x89PNG")


def test_credits_are_granted_once_and_needed(using: Page) -> None:
    granted = using.said_of("GrantCredits")
    assert set(re.findall(r'"granted": "(\d+)"', granted)) == {"100"}
    assert "CREDIT_ENTRY_KIND_GRANT" in using.said_of("ListCreditEntries")
    using.assert_refusals_are_as_shown()


def test_moodboards_and_folders(using: Page) -> None:
    job = using.said_of("GetJob")
    assert '"style_appendix": "soft morning light"' in job
    assert '"background_image_file_id"' in job
    filed = using.said_of("ListFolderFiles")
    assert len(re.findall(r'^ *"filename": "job-\d+-image-\d\.png"', filed, re.MULTILINE)) == 2
    assert re.search(r'"revision": "2"', using.said_of("UpdateMoodboard"))
    assert re.search(r'"filename": "folder-\d+-\d+\.zip"', using.said_of("CreateArchive"))


def test_reviews_ratings_and_candidates(using: Page) -> None:
    assert '"state": "REVIEW_STATE_APPROVED"' in using.said_of("ReviewJob")
    assert '"rating": 5' in using.said_of("RateImage")
    candidates = using.said_of("ListImageCandidates")
    assert '"generated"' in candidates
    assert '"uploads"' in candidates


def test_batches(using: Page) -> None:
    said = using.said_of("EnqueueBatch")
    assert '"required_credits": "4"' in said
    assert said.count('"JOB_EVENT_KIND_IMAGE_DONE"') == 4
    assert '"final": true' in said
    assert '"state": "BATCH_STATE_SUCCEEDED"' in said
    assert re.search(r"batch-\d+-\d+\.zip", using.said_of("CreateArchive"))


def test_a_cancel_is_in_time(using: Page) -> None:
    assert '"JOB_STATE_CANCELED"' in using.said_of("CancelJob")


def test_what_was_used(using: Page) -> None:
    assert re.search(r'"images": "[1-9]', using.said_of("GetUsage"))
    assert re.search(r'"stored_bytes": "[1-9]', using.said_of("GetStorage"))


def test_what_operators_ask_and_set(using: Page) -> None:
    said = using.said_of("ExplainJob")
    for word in (
        *('"sentence"', '"lane": "image_generation.fast"', '"p95_seconds"', '"accounts": "1"'),
        *('"REVIEW_JOB"', '"generator": "offline"'),
    ):
        assert word in said, word
    knobs = using.said_of("SetTeamLimits")
    for word in ('"max_live_jobs": 5', '"10000000000"', '"calls_per_minute_limit": 120'):
        assert word in knobs, word


def test_what_operators_read_runs(operations: Page) -> None:
    assert '"sentence"' in operations.said_of("ExplainJob")
    assert '"draining": true' in operations.said_of("DrainWorker")
    said = "\n".join(block.said for block in operations.blocks)
    for word in ('"status": "SERVING"', '"outbox": ', '"circuit": "', "0 differences"):
        assert word in said, word
    copied = operations.folder / "out"
    assert (copied / "back" / "enqueue.sqlite").is_file()
    assert {path.name for path in (copied / "back" / "blobs").iterdir()}
