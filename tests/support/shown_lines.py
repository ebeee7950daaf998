"""The bash blocks of a page, run as they stand, in order, in one shell."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.house import environ, ran

MARK = "=== block"
RUN_SECONDS = 240.0  # all of a page


@dataclass(frozen=True)
class Block:
    """One block of a page, what it shows as its answer, and what it said on stdout and stderr."""

    text: str
    refused: bool
    shown: str
    said: str


async def run_blocks(
    page: Path, kind: str, variables: Mapping[str, str], folder: Path
) -> list[Block]:
    """Runs those marked `<!-- KIND -->` or `<!-- KIND refused -->`; AssertionError at a surprise.

    Args:
        page: what people read.
        kind: which of its blocks.
        variables: for the environment.
        folder: to run in, like the repository's root.
    """
    found = _blocks(page, kind)
    assert found, f"{page.name} has no block marked <!-- {kind} -->"
    said = await _bash(_script(found), variables, folder)
    answers = re.split(rf"^{MARK} (\d+)$", said, flags=re.MULTILINE)
    codes = [int(code) for code in answers[1::2]]
    assert len(codes) == len(found), said
    assert [code != 0 for code in codes] == [refused for _, refused, _ in found], said
    blocks = zip(found, answers[::2], strict=False)
    return [Block(*block, answer) for block, answer in blocks]


def _blocks(page: Path, kind: str) -> list[tuple[str, bool, str]]:
    """Each block of the page: its lines, whether they are to fail, the answer that is shown."""
    block = re.compile(
        rf"<!-- {kind}( refused)? -->\n```bash\n(.*?)```(?:\n\n```\n(.*?)```)?", re.DOTALL
    )
    return [
        (text, bool(refused), shown) for refused, text, shown in block.findall(page.read_text())
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
    return (await ran(process, RUN_SECONDS)).out
