"""What `contentshop demo` does: a house of its own as a child process, and one job through it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from rich.text import Text

from cli import words
from cli.connection import connect
from cli.datafolder import DataFolder
from cli.errors import CliError, ExitCode, NotRunningError
from cli.files import make_folder
from cli.making import GenerationWish, Made, carry_out, say_ending
from cli.output import Output
from cli.plain import to_plain
from cli.running import run
from cli.saving import show_saved
from libs.common import env
from libs.common.clock import SystemClock

START_SECONDS = 60.0
STOP_SECONDS = 15.0
DRAIN_SECONDS = 1  # nobody waits for images of a demo that is over
POLL_SECONDS = 0.05
_OLD_OUTPUTS = ("image-*.png", "image-*.jpg", "image-*.webp", "generation-*.zip", ".*.part")


def demonstrate(
    out: Path, *, photos: Path | None, variations: int, generator: str, output: Output
) -> ExitCode:
    """Runs the demo; whatever happens, nothing of it runs on afterwards."""
    wish = _wish(photos or _example_photos(), variations)
    return run(_demonstrate(out, wish, generator, output))


async def _demonstrate(out: Path, wish: GenerationWish, generator: str, output: Output) -> ExitCode:
    clock = SystemClock()
    began = clock.monotonic()
    await asyncio.to_thread(_clear, out)
    output.note(f"starting the four services (generator {generator}) …")
    async with _house(out / ".data", generator):
        started = clock.monotonic() - began
        async with connect(out / ".data", "demo") as shop:
            made = await carry_out(shop, wish, out=out, output=output, outlives_us=False)
        stopping = clock.monotonic()
    stopped = clock.monotonic() - stopping
    steps = [("start", started), *made.steps, ("stop", stopped)]
    return _summary(made, steps, clock.monotonic() - began, output)


def _clear(out: Path) -> None:
    make_folder(out)
    for pattern in _OLD_OUTPUTS:
        for old in out.glob(pattern):
            old.unlink()


def _example_photos() -> Path:
    """The repository's, wherever we are called from; else those under the current folder."""
    in_repository = Path(__file__).resolve().parent.parent / "examples" / "photos"
    return in_repository if in_repository.is_dir() else Path("examples/photos")


def _wish(photos: Path, variations: int) -> GenerationWish:
    names = ("sneaker.jpg", "background.jpg", "moodboard.png")
    missing = [name for name in names if not (photos / name).is_file()]
    if missing:
        raise CliError(
            f"the example photos are not in {photos}: {', '.join(missing)}",
            ExitCode.USAGE,
            hint="Draw them: python examples/make_photos.py",
            reason="NO_PHOTOS",
        )
    product, background, mood = (str(photos / name) for name in names)
    return GenerationWish(
        product_images=[product],
        background_image=background,
        moodboard_images=[mood],
        values={"purpose": "lifestyle", "aspect_ratio": "4:5"},
        variations=variations,
    )


@asynccontextmanager
async def _house(data: Path, generator: str) -> AsyncIterator[None]:
    """A house on free ports that ends with this block, or with this process however that ends."""
    folder = DataFolder(data)
    make_folder(data)
    log_path = data / "up.log"
    argv = [sys.executable, "-m", "cli.main", "up", "--data", str(data), "--port-base", "0"]
    argv += ["--generator", generator, "--stop-on-eof"]
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            stdout=log,
            stderr=log,
            env={**env.process_environ(), "WORKER_DRAIN_SECONDS": str(DRAIN_SECONDS)},
            start_new_session=True,  # Ctrl-C comes to us; we stop the child in order
        )
    try:
        await _until_up(process, folder, log_path)
        yield
    finally:
        await _stop(process)


async def _until_up(
    process: asyncio.subprocess.Process, folder: DataFolder, log_path: Path
) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                with suppress(NotRunningError):
                    if folder.read_endpoints().pid == process.pid:
                        return
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        pass
    text = await asyncio.to_thread(log_path.read_text, encoding="utf-8", errors="replace")
    said = text.splitlines()
    why = next((line for line in reversed(said) if line.startswith("contentshop: ")), "")
    raise CliError(
        why.removeprefix("contentshop: ") or "the services did not start",
        ExitCode.UNAVAILABLE,
        hint=f"Their log: {log_path}",
        reason="NO_START",
    )


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _summary(
    made: Made, steps: list[tuple[str, float]], seconds: float, output: Output
) -> ExitCode:
    show_saved(made.savings, output)
    output.say("")
    output.table(
        [("step", "left"), ("took", "right")],
        [
            *((name, words.seconds(took)) for name, took in steps),
            (Text("all", style="bold"), Text(words.seconds(seconds), style="bold")),
        ],
    )
    code = say_ending(made.job, output)
    output.say(f"Look at the images in {made.savings.folder}/")
    output.result(
        {
            "job": to_plain(made.job),
            "files": made.savings.payload(),
            "folder": str(made.savings.folder),
            **made.savings.gaps(),
            "steps": {name: round(took, 3) for name, took in steps},
            "seconds": round(seconds, 3),
        }
    )
    return code if made.savings.whole else ExitCode.FAILED
