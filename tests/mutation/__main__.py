"""Runs them: `python -m tests.mutation`, all, or `--only ledger leases`; results in out/mutation/.

A fault is found by a test that fails, a broken promise of the simulation, or a run that does not
end; else it survives, and is printed.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.faults import Fault, faults_of
from tests.mutation.plan import MODULES, MOST_TESTS, ROOT, SEEDS, source_of
from tests.mutation.trial import Trial, options, reach, run_collected, run_imported

OUT = ROOT / "out" / "mutation"
# What is not ours, nor pytest's, and takes a second to import.
PRELOADED = (
    *("aiosqlite", "alembic.command", "grpc.aio", "grpc_reflection.v1alpha.reflection", "jwt"),
    *("sqlalchemy.ext.asyncio", "sqlalchemy.dialects.sqlite.aiosqlite", "structlog", "PIL.Image"),
    *("contentshop.enqueue.v1.ops_pb2_grpc", "contentshop.assets.v1.backend_pb2_grpc"),
    *("aio_pika", "psycopg"),
    # Ours, but no module that is put to the test, nor one that imports such.
    *("libs.common.grpc_server", "libs.common.grpc_client", "libs.common.auth", "libs.common.env"),
    *("libs.common.db", "libs.common.migrations", "libs.common.broker_amqp"),
)
OVERHEAD_SECONDS = 0.02
CHILDREN: set[int] = set()  # that no exit may leave behind
LEAST_SECONDS = 60.0  # a run that takes longer than this and three times its tests hangs


def say(line: str) -> None:
    """To whoever ran it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass(slots=True)
class Result:
    """What became of one fault."""

    module: str
    fault: Fault
    by: str
    said: str

    @property
    def of(self) -> tuple[str, Fault]:
        """What was tried."""
        return self.module, self.fault

    @property
    def kind(self) -> str:
        """How it ended."""
        if self.by in ("", "no time left"):
            return "timeout" if self.by else "survived"
        return "killed"


@dataclass(slots=True)
class Running:
    """A forked process, its folder, and when it has to be over."""

    folder: Path
    until: float
    work: tuple[str, Fault]


class Reached:
    """Which tests reach a fault, and in which order to try them."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.seconds: dict[str, float] = found["seconds"]
        self.kills: Counter[str] = Counter()
        self._breadth: Counter[tuple[str, str]] = Counter()
        self._by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        for test, lines in found["reached"].items():
            for module, line in lines:
                self._by_line[module, line].add(test)
                self._breadth[module, test] += 1

    def tests_of(self, module: str, fault: Fault, most: int) -> tuple[str, ...]:
        """The tests to run: first those that found most, and see most of the module, per second."""
        if fault.at_import:
            chosen = {t for (of, _), these in self._by_line.items() if of == module for t in these}
        else:
            lines = range(fault.first_line, fault.last_line + 1)
            chosen = {test for line in lines for test in self._by_line.get((module, line), ())}

        def worth(test: str) -> float:
            return (
                (1 + self.kills[test])
                * self._breadth[module, test]
                / (self.seconds[test] + OVERHEAD_SECONDS)
            )

        if fault.at_import:  # whatever the module does
            most *= 4
        return tuple(sorted(chosen, key=worth, reverse=True)[:most])


def forked(work: Callable[[Path], None], folder: Path) -> int:
    """Does it in a child with a session of its own; the child's id."""
    folder.mkdir(parents=True)
    sys.stdout.flush()
    child = os.fork()
    if child:
        CHILDREN.add(child)
        return child
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work(folder)
        code = 0
    except BaseException:  # noqa: BLE001 - it is a process, and this its end
        (folder / "died").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def reached_by(
    modules: Sequence[str], tests: Sequence[str], database: str, folder: Path
) -> Reached:
    """Runs the tests once, without a fault: who reaches what. They must pass."""
    began = time.monotonic()
    digest = hashlib.sha256(repr((database, list(modules), list(tests))).encode())
    for path in [*map(ROOT.joinpath, tests), *map(source_of, modules)]:
        digest.update(path.read_bytes())
    kept = OUT / f"reach-{digest.hexdigest()[:16]}.json"
    if kept.exists():  # nothing has changed since
        return Reached(json.loads(kept.read_text()))
    child = forked(lambda there: reach(modules, tests, database, there), folder)
    os.waitpid(child, 0)
    CHILDREN.discard(child)
    if (folder / "died").exists():
        raise SystemExit((folder / "died").read_text())
    found = json.loads((folder / "reach").read_text())
    if found["failed"] or not found["reached"]:
        say((folder / "output").read_text()[-4000:])
        raise SystemExit("the tests must pass before a fault is planted")
    kept.write_text(json.dumps(found))
    say(f"{len(found['reached'])} tests pass, {time.monotonic() - began:.0f} s")
    return Reached(found)


class Trials:
    """Tries faults, some at a time."""

    def __init__(self, reached: Reached, folder: Path, *, asked: argparse.Namespace) -> None:
        self._reached = reached
        self._folder = folder
        self._asked = asked
        self._running: dict[int, Running] = {}
        self._number = 0

    def results(
        self, work: Sequence[tuple[str, Fault]], how: Callable[[Trial, Path], None]
    ) -> Iterator[Result]:
        """One result per fault, as they come."""
        for module, fault in work:
            while len(self._running) >= self._asked.processes:
                yield self._next()
            self._start(module, fault, how)
        while self._running:
            yield self._next()

    def _start(self, module: str, fault: Fault, how: Callable[[Trial, Path], None]) -> None:
        items = self._reached.tests_of(module, fault, self._asked.tests)
        trial = Trial(module, fault.number, items, self._asked.seeds)
        self._number += 1
        folder = self._folder / str(self._number)
        limit = LEAST_SECONDS + 10 * sum(self._reached.seconds[item] for item in items)
        child = forked(lambda there: how(trial, there), folder)
        self._running[child] = Running(folder, time.monotonic() + limit, (module, fault))

    def _next(self) -> Result:
        while True:
            for child, running in list(self._running.items()):
                late = time.monotonic() > running.until
                if late:
                    os.killpg(child, signal.SIGKILL)
                if os.waitpid(child, 0 if late else os.WNOHANG) == (0, 0):
                    continue
                CHILDREN.discard(child)
                del self._running[child]
                return self._result(running, late=late)
            time.sleep(0.01)

    def _result(self, running: Running, *, late: bool) -> Result:
        module, fault = running.work
        verdict = running.folder / "verdict"
        if verdict.exists():
            found = json.loads(verdict.read_text())
            self._reached.kills[found["by"]] += 1
            result = Result(module, fault, found["by"], found["said"])
        else:
            result = Result(module, fault, "no time left" if late else "the process died", "")
        shutil.rmtree(running.folder, ignore_errors=True)
        return result


def chosen(asked: argparse.Namespace) -> list[tuple[str, Fault]]:
    """The faults to try: all, an even sample of each module, or those of some lines."""
    work = []
    for name in asked.only or MODULES:
        module, _ = MODULES[name]
        faults = faults_of(source_of(module).read_text())
        if asked.where:
            faults = [fault for fault in faults if fault.at_import == (asked.where == "import")]
        if asked.sample and len(faults) > asked.sample:
            step = len(faults) / asked.sample
            faults = [faults[int(i * step)] for i in range(asked.sample)]
        if asked.lines:
            faults = [fault for fault in faults if fault.line in asked.lines]
        work += [(module, fault) for fault in faults]
    return work


def table(results: Sequence[Result]) -> Iterator[str]:
    """The score of each module."""
    yield "| module | faults | killed | timeout | survived | score |"
    yield "|---|---:|---:|---:|---:|---:|"
    modules = [*dict.fromkeys(result.module for result in results)]
    for name, mine in [
        *((module, [r for r in results if r.module == module]) for module in modules),
        ("all", results),
    ]:
        kinds = Counter(result.kind for result in mine)
        found = kinds["killed"] + kinds["timeout"]
        yield (
            f"| {name} | {len(mine)} | {kinds['killed']} | {kinds['timeout']}"
            f" | {kinds['survived']} | {100 * found / len(mine):.1f} % |"
        )


def main() -> int:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(MODULES), help="these modules alone")
    parser.add_argument("--lines", nargs="+", type=int, help="faults of these lines alone")
    parser.add_argument("--sample", type=int, help="so many faults of each module, evenly taken")
    parser.add_argument("--tests", type=int, default=MOST_TESTS, help="per fault, at most")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the simulation, per survivor")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="what survived the last time alone")
    parser.add_argument("--where", choices=("functions", "import"), help="faults met there alone")
    parser.add_argument("--list", action="store_true", help="the faults, and nothing tried")
    asked = parser.parse_args()
    if sys.flags.hash_randomization:  # a set's order is part of a history
        again = [sys.executable, "-m", "tests.mutation", *sys.argv[1:]]
        os.execve(again[0], again, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606, TID251
    work = chosen(asked)
    if asked.list:
        for module, fault in work:
            say(f"{module}:{fault}")
        return 0
    return try_all(asked, work)


def kept_results(path: Path) -> Iterator[Result]:
    """What came of it the last time; the modules must not have changed since."""
    for line in path.read_text().splitlines():
        row = json.loads(line)
        fault = faults_of(source_of(row["module"]).read_text())[row["number"] - 1]
        if str(fault) != row["fault"]:
            raise SystemExit(f"{row['module']} has changed: try its faults anew")
        yield Result(row["module"], fault, row["by"], row["said"])


class Collected:
    """A pytest plugin: tries the faults of functions instead of running the tests."""

    def __init__(self, tries: Callable[[pytest.Session], None]) -> None:
        self._tries = tries

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._tries(session)
        return True


def try_all(asked: argparse.Namespace, work: Sequence[tuple[str, Fault]]) -> int:
    """Tries the faults, and reports."""
    began = time.monotonic()
    for name in PRELOADED:
        importlib.import_module(name)
    folder = Path(tempfile.mkdtemp(prefix="contentshop-mutation-"))
    OUT.mkdir(parents=True, exist_ok=True)
    name = "-".join(asked.only or ["all"])
    results = list(kept_results(OUT / f"{name}.jsonl")) if asked.again else []
    work = [r.of for r in results if r.kind == "survived"] if asked.again else work
    results = [result for result in results if result.kind != "survived"]
    names = asked.only or list(MODULES)
    modules = [MODULES[name][0] for name in names]
    tests = [*dict.fromkeys(test for name in names for test in MODULES[name][1])]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        reached = reached_by(modules, tests, asked.database, folder / "reach")
        trials = Trials(reached, folder, asked=asked)
        with (OUT / f"{name}.jsonl").open("w") as log:
            log.writelines(_line(result) + "\n" for result in results)

            def note(found: Iterator[Result]) -> None:
                for result in found:
                    results.append(result)
                    log.write(_line(result) + "\n")
                    log.flush()
                    if result.kind == "survived":
                        say(f"survived: {result.module}:{result.fault}")

            def in_session(session: pytest.Session) -> None:
                here = lambda trial, there: run_collected(trial, session, there)  # noqa: E731
                note(trials.results([(m, f) for m, f in work if not f.at_import], here))

            note(trials.results([(m, f) for m, f in work if f.at_import], run_imported))
            gc.freeze()
            pytest.main([*options(folder), *tests], plugins=[Collected(in_session)])
    finally:
        for child in CHILDREN:
            os.killpg(child, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    say("")
    for line in table(results):
        say(line)
    say(f"\n{time.monotonic() - began:.0f} s")
    return 0


def _line(result: Result) -> str:
    fault = result.fault
    row = {"module": result.module, "number": fault.number, "fault": str(fault)}
    return json.dumps(row | {"kind": result.kind, "by": result.by, "said": result.said})


if __name__ == "__main__":
    sys.exit(main())
