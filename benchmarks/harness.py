"""What the suite costs: per check, per page, per start.

    python -m benchmarks.harness            some minutes: it runs all claims and all tests once

Each cost has an aim. Exit status 1 when one is missed, so that the suite cannot grow slow unnoticed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tests" / "reports" / "sample_results.py"
SETTINGS = '[pytest]\nstrict = true\naddopts = ["--import-mode=importlib", "-q", "-p", "no:cacheprovider"]\n'
BIBLIOGRAPHY = "@article{somebody2024,\n  title = {Squares},\n  author = {Body, Some},\n  year = {2024},\n}\n"
CONFTEST = """
import reports.reporter

pytest_plugins = ["reports.plugin"]
reports.reporter.write_page = lambda *_: None
"""
CHECKS_PER_FILE = 10
"""As in a real file of claims: pytest parses the whole file anew for each traceback, so longer ones cost more."""

CLAIM = """
claim{i} = Claim(
    paper="somebody2024", slug="claim-{i}", where="Theorem {i}", says="A statement.", formula=r"x^2 \\ge {i}",
    gap="All else.",
)

@claim{i}.check("exact", controls={{"broken": {{"value": -1.0}}}})
def test_statement_{i}(evidence, *, value=1.0):
    \"\"\"A check that costs nothing.\"\"\"
    evidence.expect("value", value, at_least=0.0)
"""
PLAIN = """
def test_statement_{i}(value=1.0):
    assert value >= 0.0

def test_control_{i}(value=-1.0):
    with pytest.raises(AssertionError):
        test_statement_{i}(value)
"""


@dataclass(frozen=True)
class Cost:
    """One measured cost: the median of its samples, the most it may be (None: no aim), and the samples' range."""

    name: str
    value: float
    aim: float | None
    unit: str
    low: float
    high: float
    samples: int

    @property
    def met(self) -> bool:
        return self.aim is None or self.value <= self.aim


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0 when all aims are met, 1 when one is missed, 2 when something could not be measured."""
    options = _parser().parse_args(arguments)
    measure: dict[str, Callable[[], list[Cost]]] = {
        "start": lambda: [start_up(options.repeat)],
        "page": lambda: rendering(options.claims, options.repeat),
        "plugin": lambda: overhead(options.checks, options.repeat),
        **{name: partial(command, name) for name in COMMANDS},
    }
    try:
        costs = [cost for name, one in measure.items() if name in (options.only or measure) for cost in one()]
    except (subprocess.CalledProcessError, OSError) as error:
        output = getattr(error, "stdout", None) or ""
        print(f"harness: {error}\n{output[-2000:]}", file=sys.stderr)
        return 2
    print(table(costs))
    if options.json:
        write(Path(options.json), costs)
    return int(not all(cost.met for cost in costs))


def write(path: Path, costs: Sequence[Cost]) -> None:
    """Costs with the commit and machine of each; a cost that was not measured this time stays as the file has it."""
    from reports.environment import describe
    from reports.files import write_whole

    environment = describe(ROOT, suite_seed=0, profile="quick", device="cpu")
    new = {cost.name: asdict(cost) | {"met": cost.met, "commit": environment["commit"]} for cost in costs}
    old = json.loads(path.read_text("utf-8"))["costs"] if path.is_file() else []
    whole = {"environment": environment, "costs": list(({cost["name"]: cost for cost in old} | new).values())}
    write_whole(path, json.dumps(whole, indent=1) + "\n")


# -- the plugin --------------------------------------------------------------------------------------------------------


def overhead(checks: int, repeat: int) -> list[Cost]:
    """Milliseconds that the plugin adds per check, its one control included, and seconds that it adds per run.

    The same tests are written as claims and as plain pytest, where a control is a test that expects the failure with
    `pytest.raises`. They run in turns, each time in a new process, and what a single check costs more is taken off, as
    it is paid once per run. The page is no part of it: `rendering` measures that.
    """
    with tempfile.TemporaryDirectory(prefix="attest-harness-") as folder:
        sizes = {size: write_projects(Path(folder) / str(size), size) for size in (1, checks)}
        once: list[float] = []
        all_of_them: list[float] = []
        for _ in range(repeat + 1):
            for size, into in ((1, once), (checks, all_of_them)):
                claims, plain = (_run_tests(project, 2 * size) for project in sizes[size])
                into.append(claims - plain)
    rounds = list(zip(once, all_of_them, strict=True))[1:]  # the first one compiles and fills disk caches
    per_check = [1000 * (many - one) / (checks - 1) for one, many in rounds]
    return [
        _cost("plugin, per check with a control", per_check, 1.0, "ms"),
        _cost("plugin, once per run", [one for one, _ in rounds], None, "s"),
    ]


def write_projects(folder: Path, checks: int) -> tuple[Path, Path]:
    """Two projects with the same `checks` trivial tests and as many failing ones: as claims, and as plain pytest."""
    imports = {"claims": "from reports.claim import Claim", "plain": "import pytest"}
    bodies = {"claims": CLAIM, "plain": PLAIN}
    for name, header in imports.items():
        tests = folder / name / "tests" / "claims"
        tests.mkdir(parents=True)
        for first in range(0, checks, CHECKS_PER_FILE):
            numbers = range(first, min(first + CHECKS_PER_FILE, checks))
            source = header + "\n" + "".join(bodies[name].format(i=i) for i in numbers)
            (tests / f"test_squares_{first}.py").write_text(source, "utf-8")
        (folder / name / "pytest.toml").write_text(SETTINGS, "utf-8")
    (folder / "claims" / "references.bib").write_text(BIBLIOGRAPHY, "utf-8")
    entries = "".join(f'["somebody2024/claim-{i}"]\nverdict = "supported"\nlevel = "exact"\n' for i in range(checks))
    (folder / "claims" / "reports").mkdir()
    (folder / "claims" / "reports" / "verdicts.toml").write_text(entries, "utf-8")
    (folder / "claims" / "conftest.py").write_text(CONFTEST, "utf-8")
    return folder / "claims", folder / "plain"


def _run_tests(project: Path, tests: int) -> float:
    """Seconds of processor time from pytest's start to its end; all of `tests` must do as expected.

    Processor time, as everything runs in one thread that never waits, and other work on the machine does not count.

    Raises:
        subprocess.CalledProcessError: pytest failed.
        OSError: not all tests ran.
    """
    command = [sys.executable, "-c", TIMED_PYTEST]
    run = subprocess.run(command, cwd=project, env=_environment(), check=True, text=True, capture_output=True)
    collected, seconds = run.stdout.strip().splitlines()[-1].split()
    if int(collected) != tests:
        raise OSError(f"{project} ran {collected} tests instead of {tests}:\n{run.stdout[-2000:]}")
    return float(seconds)


TIMED_PYTEST = """
import sys, time, pytest
from hypothesis import settings  # pytest's plugin of Hypothesis loads it in one case only: load it in both

class Count:
    reports = 0
    def pytest_runtest_logreport(self, report):
        self.reports += report.when == "call" and not report.failed

count = Count()
started = time.process_time()
status = pytest.main(plugins=[count])
print()
print(count.reports, time.process_time() - started)
sys.exit(int(status))
"""


# -- the page ----------------------------------------------------------------------------------------------------------


def rendering(claims: int, repeat: int) -> list[Cost]:
    """Seconds to render a results file of that many claims, and the page's size in megabytes (10^6 bytes)."""
    from reports.page import render

    results = sample(claims)
    seconds, sizes = [], []
    for _ in range(repeat):
        started = time.perf_counter()
        page = render(results)
        seconds.append(time.perf_counter() - started)
        sizes.append(len(page.encode()) / 1e6)
    what = f"page of {claims} claims"
    return [_cost(f"{what}, rendering", seconds, 3.0, "s"), _cost(f"{what}, size", sizes, 10.0, "MB")]


def sample(claims: int) -> dict[str, Any]:
    """Results made up for the page's own tests."""
    spec = importlib.util.spec_from_file_location("attest_sample_results", SAMPLE)
    if spec is None or spec.loader is None or not SAMPLE.exists():
        raise OSError(f"{SAMPLE} is missing: run this in a whole checkout")
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results: dict[str, Any] = module.many(claims)
    return results


# -- the command line --------------------------------------------------------------------------------------------------


def start_up(repeat: int) -> Cost:
    """Seconds of `python -m reports list` as a whole process, in this checkout."""
    command = [sys.executable, "-m", "reports", "list"]
    seconds = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=_environment(), check=True, text=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return _cost("attest list, whole process", seconds[1:], 0.5, "s")  # the first one compiles and fills disk caches


# -- the two commands of the README ------------------------------------------------------------------------------------

README_TEST = "tests/reports/test_readme.py::test_the_numbers_in_the_readme_are_the_current_ones"
COMMANDS = {
    "all tests": (["pytest", "-n", "auto", "--deselect", README_TEST], 900.0),  # it waits for what is measured here
    "all claims and the page": (["reports", "run"], 810.0),
}
"""Cost -> the command behind it, and its aim in seconds."""


def command(name: str) -> list[Cost]:
    """Seconds of one run, with one process per core and no trained model in the cache; none if it fails."""
    module, aim = COMMANDS[name]
    with tempfile.TemporaryDirectory(prefix="attest-harness-") as folder:
        environment = _environment() | {"ATTEST_CACHE": str(Path(folder, "cache"))}
        started = time.perf_counter()
        called = [sys.executable, "-m", *module, "-q", f"--out={folder}"]
        subprocess.run(called, cwd=ROOT, env=environment, check=True, text=True, capture_output=True)
        return [_cost(name, [time.perf_counter() - started], aim, "s")]


# -- inside ------------------------------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def _cost(name: str, samples: list[float], aim: float | None, unit: str) -> Cost:
    return Cost(name, statistics.median(samples), aim, unit, min(samples), max(samples), len(samples))


def table(costs: Sequence[Cost]) -> str:
    """One line per cost: median, range, aim, verdict."""
    lines = [f"{'cost':<36} {'median':>9} {'range':>17} {'aim':>9}"]
    for cost in costs:
        span = f"{cost.low:.3f}-{cost.high:.3f}"
        aim, met = ("", "") if cost.aim is None else (f"<= {cost.aim:g}", "ok" if cost.met else "MISSED")
        lines.append(f"{cost.name:<36} {cost.value:9.3f} {span:>17} {aim:>9} {cost.unit:<2}  {met}".rstrip())
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.harness", description="What does the suite itself cost?")
    parser.add_argument("--only", action="append", metavar="NAME", choices=("start", "page", "plugin", *COMMANDS),
                        help="measure this alone; may be repeated")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the numbers, with the environment they were measured in")
    parser.add_argument("--checks", type=int, default=500, help="checks in the generated project (default 500)")
    parser.add_argument("--claims", type=int, default=1000, help="claims on the rendered page (default 1000)")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions, of which the median counts (default 5)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
