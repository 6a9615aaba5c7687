"""Running the tests of a module against its mutants: scratch copies, forked processes, time limits.

Each mutant is written into a scratch copy of the checkout and tested by one pytest in a forked process, which starts
warm, for this process has imported all libraries that the tests use (but nothing of the checkout). The process ends
itself at the first test that notices: nothing is shrunk, rendered or torn down.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.affected_tests import CLAIMS, files_testing
from benchmarks.mutation import Mutant
from reports.claim import CHECK_ATTRIBUTE

LEVELS = ("proof", "certified", "exact", "property", "statistical")
"""Levels of the checks that are run: mutants of theory are for theory's checks to kill, not for training runs."""

NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "out", "shared", "*.egg-info", "node_modules", "venv")
MEMORY = 8 * 2**30
"""Bytes of address space of one process: a mutant that asks for more gets a MemoryError, and not the machine."""


class RunError(Exception):
    """The tests cannot judge mutants; the message says why and what to do."""


@dataclass
class Baseline:
    """The tests of a module before any mutation: test -> seconds, in the order in which they are to run."""

    files: list[str]
    seconds: dict[str, float] = field(default_factory=dict)

    def with_first(self, killers: Mapping[tuple[str, str], int], function: str) -> Baseline:
        """Claims before unit tests; of each those that killed the function's other mutants first, then the fastest."""

        def rank(test: str) -> tuple[bool, int, float]:
            return not test.startswith(CLAIMS), -killers.get((function, test), 0), self.seconds[test]

        return Baseline(self.files, {test: self.seconds[test] for test in sorted(self.seconds, key=rank)})


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant: `status` is killed, timeout or survived; `test` is the one that decided, if any."""

    status: str
    test: str
    seconds: float


# -- in the forked process ---------------------------------------------------------------------------------------------


class Watch:
    """Plugin of the inner pytest: puts the tests in order, and reports through a pipe.

    Without a baseline all tests run and each outcome is sent. With one, the first test that fails, or that was decided
    before and is inconclusive now, ends the process.
    """

    def __init__(self, pipe: Connection, baseline: Baseline | None) -> None:
        self.pipe = pipe
        self.baseline = baseline

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        """A violation is enough here; looking for the smallest one takes most of the time."""
        from hypothesis import Phase, settings

        settings.register_profile("mutants", settings.default, phases=[Phase.explicit, Phase.generate, Phase.target])
        settings.load_profile("mutants")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        checks = [(item, getattr(getattr(item, "obj", None), CHECK_ATTRIBUTE, None)) for item in items]
        items[:] = [item for item, check in checks if check is None or check.level in LEVELS]
        if self.baseline is not None:
            order = {name: position for position, name in enumerate(self.baseline.seconds)}
            items[:] = sorted(
                (item for item in items if item.nodeid in order), key=lambda item: order.get(item.nodeid, 0)
            )

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.pipe.send(("running", nodeid, 0.0))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._noticed(report.nodeid, str(report.longrepr))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = getattr(report, "attest", {}).get("outcome", "")
        if report.failed or (self.baseline is not None and outcome == "inconclusive"):
            self._noticed(report.nodeid, str(report.longrepr))
        elif report.when == "call" and (report.passed or hasattr(report, "wasxfail")):
            self.pipe.send(("passed", report.nodeid, report.duration))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        modules = sys.modules.items() if self.baseline is None else ()
        self.pipe.send(("finished", "", [name for name, module in modules if not _inside(module, Path.cwd())]))
        os._exit(0)

    def _noticed(self, test: str, why: str) -> None:
        self.pipe.send(("failed", test, why))
        if self.baseline is not None:
            os._exit(0)


def _inside(module: Any, folder: Path) -> bool:
    return (getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}")


def _test(root: Path, copy: Path, files: list[str], pipe: Connection, baseline: Baseline | None) -> None:
    """Body of the forked process: run pytest on the copy as if nothing of the checkout had ever been imported."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    os.chdir(copy)
    store = str(copy.parent / "hypothesis")  # else where Hypothesis was imported first, which is the user's checkout
    os.environ |= {"TMPDIR": str(copy.parent), "PYTHONPATH": str(copy), "HYPOTHESIS_STORAGE_DIRECTORY": store}
    tempfile.tempdir = None
    sys.dont_write_bytecode = True  # two mutants written within a second must not share bytecode
    sys.path[:] = [str(copy), *(entry for entry in sys.path if entry and Path(entry).resolve() != root)]
    for name in [name for name, module in sys.modules.items() if name != "__main__" and _inside(module, root)]:
        del sys.modules[name]
    importlib.invalidate_caches()
    options = ["-q", "-p", "no:cacheprovider", "--assert=plain", f"--rootdir={copy}"]
    status = pytest.main([*options, *files], plugins=[Watch(pipe, baseline)])
    pipe.send(("failed", f"pytest itself ended with status {int(status)}", "before any test ran"))
    os._exit(0)


# -- in this process ---------------------------------------------------------------------------------------------------


@dataclass
class _Running:
    mutant: Mutant
    copy: Path
    original: bytes
    process: ForkProcess
    pipe: Connection
    started: float
    test: str = ""


class Runner:
    """Scratch copies of a checkout, one per worker, and the processes that run in them. Use it in a `with`."""

    def __init__(self, root: Path, workers: int) -> None:
        self.root = root.resolve()
        self.scratch = Path(tempfile.mkdtemp(prefix="attest-mutants-")).resolve()
        self.copies = [self.scratch / str(number) / "checkout" for number in range(workers)]
        self.running: list[_Running] = []

    def __enter__(self) -> Runner:
        for copy in self.copies:
            shutil.copytree(self.root, copy, ignore=NOT_COPIED, symlinks=True)
        return self

    def __exit__(self, *exception: object) -> None:
        for one in self.running:
            _end(one.process)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def baseline(self, module: str) -> Baseline:
        """Run the module's tests unchanged, and import here what they import.

        Raises:
            NoTests: none belongs to the module.
            RunError: none runs, one fails, or they do not notice that the module cannot even be imported.
        """
        found = Baseline(files_testing(self.root, module))
        failed: dict[str, str] = {}
        outside: list[str] = []
        process, pipe = self._start(self.copies[0], found.files, None)
        with contextlib.suppress(EOFError):
            while not outside:
                kind, test, detail = pipe.recv()
                if kind == "passed":
                    found.seconds[test] = detail
                elif kind == "failed":
                    failed[test] = detail
                outside = detail if kind == "finished" else []
        _end(process)
        if failed or not outside:
            raise RunError(_red(module, failed))
        if not found.seconds:
            raise RunError(f"no test of {', '.join(found.files)} ran at the levels {', '.join(LEVELS)}: nothing judges")
        _warm(outside)
        self._canary(module, found)
        return found

    def run(self, mutants: Sequence[Mutant], tests: Baseline, limit: float) -> Iterator[tuple[Mutant, Outcome]]:
        """Outcomes as they come in. `limit` is in seconds, for each mutant."""
        waiting, free = list(reversed(mutants)), list(self.copies)
        killers: Counter[tuple[str, str]] = Counter()  # (function, test) -> mutants
        while waiting or self.running:
            while waiting and free:
                mutant, copy = waiting.pop(), free.pop()
                original = (copy / mutant.module).read_bytes()
                (copy / mutant.module).write_text(mutant.source, "utf-8")
                process, pipe = self._start(copy, tests.files, tests.with_first(killers, mutant.function))
                self.running.append(_Running(mutant, copy, original, process, pipe, time.monotonic()))
            for mutant, outcome in self._collect(free, limit):
                killers[mutant.function, outcome.test] += outcome.status == "killed"
                yield mutant, outcome

    def _collect(self, free: list[Path], limit: float) -> Iterator[tuple[Mutant, Outcome]]:
        """Wait for the next news from any process, or the next deadline."""
        soonest = min(one.started for one in self.running) + limit - time.monotonic()
        ready = wait([one.pipe for one in self.running], timeout=max(soonest, 0))
        for one in list(self.running):
            status = _news(one) if one.pipe in ready else None
            if status is None and time.monotonic() > one.started + limit:
                status = "timeout"
            if status is not None:
                _end(one.process)
                self.running.remove(one)
                (one.copy / one.mutant.module).write_bytes(one.original)
                free.append(one.copy)
                yield one.mutant, Outcome(status, one.test, time.monotonic() - one.started)

    def _start(self, copy: Path, files: list[str], baseline: Baseline | None) -> tuple[ForkProcess, Connection]:
        context = multiprocessing.get_context("fork")
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_test, args=(self.root, copy, files, sending, baseline))
        process.start()
        sending.close()  # else no later process's death would be seen as the end of this pipe
        return process, receiving

    def _canary(self, module: str, tests: Baseline) -> None:
        """A module that cannot be imported must be noticed, or the tests run on something else than the copy."""
        source = (self.root / module).read_text("utf-8") + "\nraise RuntimeError('canary of the mutation run')\n"
        dead = Mutant(module, "", "", "", 1, 0, "canary", source)
        for _, outcome in self.run([dead], tests, limit=60 + 2 * sum(tests.seconds.values())):
            if outcome.status == "survived":
                raise RunError(
                    f"{', '.join(tests.files)} pass although {module} was made impossible to import: they do not use "
                    "it, or import it from elsewhere than the checkout; is another copy of it installed?"
                )


def _news(one: _Running) -> str | None:
    """The status that a process's message decides, if it does."""
    try:
        kind, test, _ = one.pipe.recv()
    except EOFError:  # it died without a word, as by a crash in compiled code
        return "killed"
    one.test = test or one.test
    return {"failed": "killed", "finished": "survived"}.get(kind)


def _end(process: ForkProcess) -> None:
    """Kill a process with all that it started. It leads a group of its own, unless it is too young to have made one."""
    assert process.pid
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _warm(names: list[str]) -> None:
    """Import these modules here, so that no forked process has to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    gc.freeze()  # a collection in a forked process would copy every page of what is shared


def _red(module: str, failed: dict[str, str]) -> str:
    tests = "".join(f"\n  {test}\n    {why.strip().splitlines()[-1][:300]}" for test, why in list(failed.items())[:5])
    return f"the tests of {module} fail before any mutation; make them pass first:{tests or ' pytest did not finish'}"
