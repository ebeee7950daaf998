"""The grpcurl lines of README.md, run as they stand, by bash, against a running house."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.house import ROOT, environ, house

README = ROOT / "README.md"
BLOCK = re.compile(r"<!-- grpcurl( refused)? -->\n```bash\n(.*?)```", re.DOTALL)
MARK = "=== block"
RUN_SECONDS = 60.0


@dataclass(frozen=True)
class Block:
    """One block of README.md and what it said, on stdout and stderr."""

    text: str
    refused: bool
    said: str


def _script(blocks: list[tuple[str, bool]]) -> str:
    """All blocks in one shell, since later ones use variables of earlier ones."""
    lines = ["set -uo pipefail; exec 2>&1"]
    for text, refused in blocks:
        # `set -e` as a reader would want it: what is not said to fail must not.
        lines += ["set +e" if refused else "set -e", text]
        lines += [f"code=$?; printf '\\n{MARK} %s\\n' $code"]
    return "\n".join(lines)


@pytest.fixture(scope="module")
async def ran(tmp_path_factory: pytest.TempPathFactory) -> list[Block]:
    """The blocks, run in order; images are slow, so that the cancel comes in the middle."""
    found = [(text, bool(refused)) for refused, text in BLOCK.findall(README.read_text())]
    assert found, "README.md has no block marked <!-- grpcurl -->"
    folder = tmp_path_factory.mktemp("readme")
    for name in ("examples", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    slow = {"OFFLINE_DELAY_SECONDS": "0.5", "WORKER_IMAGES_AT_ONCE": "3"}
    async with house(folder / "data", env=slow) as running:
        variables = {
            **{name.upper(): running.ready[name] for name in ("enqueue", "assets", "packager")},
            "CONTENTSHOP_DATA": str(running.data),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }
        said = await _bash(_script(found), variables, folder)
    answers = re.split(rf"^{MARK} (\d+)$", said, flags=re.MULTILINE)
    codes = [int(code) for code in answers[1::2]]
    assert len(codes) == len(found), said
    assert [code != 0 for code in codes] == [refused for _, refused in found], said
    blocks = zip(found, answers[::2], strict=False)
    return [Block(text, refused, answer) for (text, refused), answer in blocks]


async def _bash(script: str, variables: dict[str, str], folder: Path) -> str:
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


def _that_call(ran: list[Block], method: str) -> list[Block]:
    return [block for block in ran if f"/{method}" in block.text and not block.refused]


def test_every_method_that_people_need_first_is_shown(ran: list[Block]) -> None:
    for method in (
        *("EnqueueGeneration", "WatchJob", "GetJob", "ListJobEvents", "CancelJob"),
        *("GetArchive", "UploadFile"),
    ):
        assert _that_call(ran, method), method


def test_a_watch_ends_by_itself(ran: list[Block]) -> None:
    (block,) = _that_call(ran, "WatchJob")
    assert block.said.count('"final": true') == block.text.count("/WatchJob")
    assert "JOB_EVENT_KIND_ARCHIVE_READY" in block.said


def test_the_zip_is_ready_and_saved(ran: list[Block]) -> None:
    (block,) = _that_call(ran, "GetArchive")
    assert "ARCHIVE_STATE_READY" in block.said
    assert re.search(r'"filename": "generation-\d+-\d+\.zip"', block.said)
    assert "image-3.png" in block.said


def test_a_cancel_is_in_time(ran: list[Block]) -> None:
    (block,) = _that_call(ran, "CancelJob")
    assert '"JOB_STATE_CANCELED"' in block.said


def test_an_upload_can_be_streamed(ran: list[Block]) -> None:
    (block,) = _that_call(ran, "UploadFile")
    assert "/api/uploads/" in block.said


def test_a_refusal_is_what_the_page_shows(ran: list[Block]) -> None:
    (block,) = [block for block in ran if block.refused]
    page = README.read_text()
    shown = page[page.index(block.text) :].split("```")[2].strip()
    assert block.said.strip() == shown
    assert "BAD_IMAGE_REFERENCE" in shown
