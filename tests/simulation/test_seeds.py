"""Histories out of seeds: storms of everybody's acts with crashes between, then healing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.plants import PLANTS

ROOT = Path(__file__).parents[2]
SEEDS = 300
HOUSE_SEEDS = 6  # all services as they are; each takes ten times as long
FIRST = {"no_fence": 95}


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: its hash seed is part of the history."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(3000)
def test_no_seed_breaks_a_promise() -> None:
    done = simulate(f"--seeds={SEEDS}")
    assert done.returncode == 0, done.stdout + done.stderr  # says how to run a seed again
    assert f"{SEEDS} seeds, 0 failed" in done.stdout


@pytest.mark.timeout(3000)
def test_no_seed_of_the_house_breaks_a_promise() -> None:
    done = simulate("--house", f"--seeds={HOUSE_SEEDS}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{HOUSE_SEEDS} seeds, 0 failed" in done.stdout


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_a_planted_fault_is_found(plant: str) -> None:
    # From a seed that finds it soon, as things are; when they change, a later one will.
    first = FIRST.get(plant, 20)
    done = simulate("--seeds=2000", f"--first={first}", "--until-broken", f"--plant={plant}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"--plant {plant}" in done.stdout
