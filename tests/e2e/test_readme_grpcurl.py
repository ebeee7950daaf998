"""The grpcurl lines of README.md and docs/USING.md, run by bash as they stand, against a house."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.house import ROOT, House, environ, house

README = ROOT / "README.md"
USING = ROOT / "docs" / "USING.md"
BLOCK = re.compile(
    r"<!-- grpcurl( refused)? -->\n```bash\n(.*?)```(?:\n\n```\n(.*?)```)?", re.DOTALL
)
MARK = "=== block"
RUN_SECONDS = 60.0


@dataclass(frozen=True)
class Block:
    """One block of a page, what it shows as its answer, and what it said on stdout and stderr."""

    text: str
    refused: bool
    shown: str
    said: str


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

    async def run(self, page: Path) -> Page:
        """The blocks of the page, in order, in one shell: later ones use variables of earlier."""
        found = _blocks(page)
        assert found, f"{page.name} has no block marked <!-- grpcurl -->"
        services = ("enqueue", "assets", "packager", "worker")
        variables = {
            **{name.upper(): self.house.ready[name] for name in services},
            "CONTENTSHOP_DATA": str(self.house.data),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }
        said = await _bash(_script(found), variables, self.folder)
        answers = re.split(rf"^{MARK} (\d+)$", said, flags=re.MULTILINE)
        codes = [int(code) for code in answers[1::2]]
        assert len(codes) == len(found), said
        assert [code != 0 for code in codes] == [refused for _, refused, _ in found], said
        blocks = zip(found, answers[::2], strict=False)
        return Page(self.folder, [Block(*block, answer) for block, answer in blocks])


def _blocks(page: Path) -> list[tuple[str, bool, str]]:
    """Each block of the page: its lines, whether they are to fail, the answer that is shown."""
    return [
        (text, bool(refused), shown) for refused, text, shown in BLOCK.findall(page.read_text())
    ]


def _script(blocks: list[tuple[str, bool, str]]) -> str:
    lines = ["set -uo pipefail; exec 2>&1"]
    for text, refused, _ in blocks:
        # `set -e` as a reader would want it: what is not said to fail must not.
        lines += ["set +e" if refused else "set -e", text]
        lines += [f"code=$?; printf '\\n{MARK} %s\\n' $code"]
    return "\n".join(lines)


async def _bash(script: str, variables: Mapping[str, str], folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=folder,
        env=environ(variables),
    )
    try:
        async with asyncio.timeout(RUN_SECONDS):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode()


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """Images are slow, so that the cancel comes in the middle."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("examples", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    slow = {"OFFLINE_DELAY_SECONDS": "0.5", "WORKER_IMAGES_AT_ONCE": "3"}
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
