"""One fault in a forked process of its own: faulty, tested, judged.

A fault in a function: everything is imported and every test collected before the fork, and the
function's code is exchanged in it. A fault that is met at import: the fork imports it all itself.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.util
import inspect
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from tests.mutation.faults import with_fault
from tests.mutation.plan import STEPS, source_of

TEST_SECONDS = 30  # one test, of which none takes ten
HISTORY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried: no module, no fault; no seeds, tests alone."""

    module: str
    number: int
    items: tuple[str, ...]
    seeds: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What found the fault: a test, a seed, or nothing; and the first line of what it said."""

    by: str = ""
    said: str = ""


def run_imported(trial: Trial, folder: Path) -> None:
    """Tries a fault that is met at import, and leaves the verdict in the folder."""
    _redirect(folder)
    sys.meta_path.insert(0, _Faulty(trial.module, trial.number))
    _judge(_by_tests(trial, folder), trial, folder)


def run_collected(trial: Trial, session: pytest.Session, folder: Path) -> None:
    """Tries a fault in a function, in a fork of a session that has collected its tests."""
    _redirect(folder)
    exchange(trial.module, trial.number)
    factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    factory._given_basetemp, factory._basetemp = folder / "tmp", None
    chosen = _Chosen(trial.items)
    session.config.pluginmanager.register(chosen)
    items = list(session.items)
    chosen.pytest_collection_modifyitems(items)
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if chosen.verdict.by:
            break
    _judge(chosen.verdict, trial, folder)


def exchange(module: str, number: int) -> None:
    """Gives the functions of a loaded module the code of the module with a fault.

    The functions stay the same objects, so that whoever imported one meets the fault.
    """
    path = str(source_of(module))
    faulty = compile(with_fault(Path(path).read_text(), number), path, "exec")
    codes = dict(_codes(faulty))
    for function in _functions(vars(sys.modules[module]), module):
        function.__code__ = codes[function.__qualname__]


def _codes(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_qualname, constant
            yield from _codes(constant)


def _functions(names: Mapping[str, Any], module: str) -> Iterator[FunctionType]:
    """The functions and methods written in a module; what its decorators make is left."""
    for value in names.values():
        if isinstance(value, type) and value.__module__ == module:
            yield from _functions(vars(value), module)
        inner: Any = value.fget if isinstance(value, property) else value
        inner = inspect.unwrap(getattr(inner, "__func__", inner))
        if isinstance(inner, FunctionType) and inner.__code__.co_filename == str(source_of(module)):
            yield inner


def _redirect(folder: Path) -> None:
    with (folder / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)


def _judge(verdict: Verdict, trial: Trial, folder: Path) -> None:
    if not verdict.by:
        verdict = _by_histories(trial)
    (folder / "verdict.tmp").write_text(json.dumps(asdict(verdict)))
    (folder / "verdict.tmp").rename(folder / "verdict")


class _Faulty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module with its fault, in place of the file."""

    def __init__(self, module: str, number: int) -> None:
        self._module = module
        self._number = number

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        path = str(source_of(fullname))
        return importlib.util.spec_from_file_location(fullname, path, loader=self)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        del spec
        return None

    def exec_module(self, module: ModuleType) -> None:
        path = source_of(self._module)
        code = compile(with_fault(path.read_text(), self._number), str(path), "exec")
        exec(code, module.__dict__)  # noqa: S102 - our own code, with one change


class _Chosen:
    """Runs the chosen tests in the chosen order, and keeps the first failure."""

    def __init__(self, items: Sequence[str]) -> None:
        self._order = {name: place for place, name in enumerate(items)}
        self.verdict = Verdict()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        mine = [item for item in items if item.nodeid in self._order]
        items[:] = sorted(mine, key=lambda item: self._order[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.verdict.by:
            self.verdict = Verdict(report.nodeid, _said(report.longrepr))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.verdict.by:
            self.verdict = Verdict("import", _said(report.longrepr))


def _said(longrepr: Any) -> str:
    crash = getattr(longrepr, "reprcrash", None)
    return str(crash.message if crash else longrepr).strip().split("\n")[0][:200]


def options(folder: Path) -> list[str]:
    """How pytest is run, with or without a fault."""
    return [
        "-q",
        "--no-header",
        "--import-mode=importlib",
        "-pno:cacheprovider",
        "-s",
        f"--basetemp={folder / 'tmp'}",
        f"--timeout={TEST_SECONDS}",
    ]


def _by_tests(trial: Trial, folder: Path) -> Verdict:
    if not trial.items:
        return Verdict()
    chosen = _Chosen(trial.items)
    files = sorted({item.split("::")[0] for item in trial.items})
    code = pytest.main([*options(folder), "-x", *files], plugins=[chosen])
    if chosen.verdict.by or code == pytest.ExitCode.OK:
        return chosen.verdict
    return Verdict("import", f"pytest ended with {int(code)}")


def _by_histories(trial: Trial) -> Verdict:
    """Walks the simulation with the fault in it."""
    if not trial.seeds:
        return Verdict()
    from tests.simulation.walk import walk  # noqa: PLC0415 - imports the faulty module

    logging.disable()
    for seed in range(1, trial.seeds + 1):
        try:
            asyncio.run(asyncio.wait_for(walk(seed, STEPS), HISTORY_SECONDS))
        except Exception as error:  # noqa: BLE001 - whatever it is, it was found
            lines = str(error).strip().split("\n")
            return Verdict(f"simulation seed {seed}", " ".join(lines[:2])[:200])
    return Verdict()


class Reach:
    """A pytest plugin: which statements of the modules each test reaches, and how long it takes."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._files = {str(source_of(module)): module for module in modules}
        self._now: set[tuple[str, int]] = set()
        self.reached: dict[str, list[tuple[str, int]]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def pytest_sessionstart(self) -> None:
        sys.settrace(self._trace)

    def _trace(self, frame: Any, event: str, arg: object) -> Any:
        del event, arg
        if frame.f_code.co_filename not in self._files:
            return None
        self._now.add((self._files[frame.f_code.co_filename], frame.f_lineno))
        return self._trace

    def pytest_runtest_logstart(self) -> None:
        self._now = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        took = self.seconds.get(report.nodeid, 0.0) + report.duration
        self.seconds[report.nodeid] = took
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.reached[nodeid] = sorted(self._now)


def reach(modules: Sequence[str], tests: Sequence[str], database: str, folder: Path) -> None:
    """Runs the tests without a fault, and leaves in the folder who reaches what."""
    _redirect(folder)
    plugin = Reach(modules)
    which = ["-mnot real"] if database == "sqlite" else ["-knot sqlite"]
    pytest.main([*options(folder), *which, *tests], plugins=[plugin])
    sys.settrace(None)
    found = {"reached": plugin.reached, "seconds": plugin.seconds, "failed": plugin.failed}
    (folder / "reach").write_text(json.dumps(found))
