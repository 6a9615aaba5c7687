"""The process that reports: it gathers outcomes, writes results.json and the page, and decides the exit status.

Under xdist the tests run in workers. Their outcomes come as an attribute of each test's report, the plan of what was
to run as a file: a worker that dies midway has left its plan, so what it did not get to is told as *lost*.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reports import environment, results
from reports.files import write_whole
from reports.selection import Selection
from reports.verdict import VERDICTS

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

PLAN_FOLDER = "attest_plan_folder"
CHECKPOINT = pytest.StashKey[str]()
"""What the claims about the user's model are put to, in words for the page; who reads the checkpoint says it."""


def write_plan(config: pytest.Config, plan: dict[str, Any]) -> None:
    """Hand the plan from the collecting process to the reporting one; all workers collect the same."""
    workerinput = getattr(config, "workerinput", None)
    if workerinput is None:
        reporter = config.pluginmanager.get_plugin("attest-reporter")
        assert isinstance(reporter, Reporter)
        reporter.plan = plan
    else:
        write_whole(Path(workerinput[PLAN_FOLDER]) / "plan.json", json.dumps(plan))


class Reporter:
    """Collects what the tests report in one run of pytest."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.plan: dict[str, Any] | None = None
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.device = "cpu"
        self.results: dict[str, Any] | None = None
        self.page: Path | None = None
        self.started = datetime.datetime.now(datetime.UTC)
        self.clock = time.monotonic()
        self.folder: Path | None = None
        if not config.option.xmlpath and not config.option.collectonly:
            config.option.xmlpath = str(self.out / "junit.xml")

    @property
    def out(self) -> Path:
        return self.config.rootpath / str(self.config.getoption("--out"))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="attest-"))
        node.workerinput[PLAN_FOLDER] = str(self.folder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController) -> None:
        device = getattr(node, "workeroutput", {}).get("attest_device", "cpu")
        self.device = device if device != "cpu" else self.device

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = getattr(report, "attest", None)
        if outcome is None:
            return
        earlier = self.outcomes.get(report.nodeid)
        if (
            earlier is None or report.when == "teardown"
        ):  # a check whose teardown fails is in error, whatever it measured
            self.outcomes[report.nodeid] = outcome

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Any:
        yield
        if self.folder is not None:
            plan = self.folder / "plan.json"
            self.plan = json.loads(plan.read_text("utf-8")) if plan.exists() else None
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.plan is None or self.config.option.collectonly:
            return
        if self.plan["mistake"]:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif self.plan["selected"]:
            self.results = self._results(self.plan)
            results.save(self.out / "results.json", self.results)
            self.page = write_page(self.results, self.out / "index.html")
            if self.results["problems"] and session.exitstatus in (
                pytest.ExitCode.OK,
                pytest.ExitCode.NO_TESTS_COLLECTED,
            ):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _results(self, plan: dict[str, Any]) -> dict[str, Any]:
        chosen = Selection.from_options(self.config)
        selected = set(plan["selected"])
        seed = self.config.getoption("--suite-seed")
        environments = [environment.describe(
            self.config.rootpath, suite_seed=seed, profile=self.config.getoption("--profile"),
            device=self.device if self.device != "cpu" else environment.device(),
            scale=self.config.getoption("--scale"), checkpoint=self.config.stash.get(CHECKPOINT, None),
        )]  # fmt: skip
        claims = [results.fill_in(claim, self.outcomes, selected, seed, environments) for claim in plan["claims"]]
        return results.conclude({
            "schema": results.SCHEMA,
            "title": self.config.getoption("--title"),
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": time.monotonic() - self.clock,
            "command": " ".join(["pytest", *self.config.invocation_params.args]),
            "selection": {
                "papers": list(chosen.papers), "claims": list(chosen.claims), "levels": list(chosen.levels),
                "complete": plan["complete"],
            },
            "environments": environments,
            "claims": claims,
        }, self.config.rootpath)  # fmt: skip

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.plan is not None and self.plan["mistake"]:
            terminalreporter.write_line(f"ERROR: {self.plan['mistake']}", red=True)
        if self.results is None:
            return
        terminalreporter.section("claims")
        for problem in self.results["problems"]:
            terminalreporter.write_line(f"PROBLEM {problem}", red=True)
        terminalreporter.write_line(counts(self.results))
        terminalreporter.write_line(f"results: {self.out / 'results.json'}")
        page = self.page or "not rendered, as jinja2 or math-core is missing here: run `attest render` where they are"
        terminalreporter.write_line(f"page:    {page}")


def write_page(run: dict[str, Any], path: Path) -> Path | None:
    """Render the page; None where its libraries are missing, as on a GPU machine."""
    if any(importlib.util.find_spec(name) is None for name in ("jinja2", "math_core")):
        return None
    from reports.page import write

    write(run, path)
    return path


def counts(run: dict[str, Any]) -> str:
    """How many claims got which verdict, in words."""
    words = [claim["verdict"] or "no verdict" for claim in run["claims"]]
    found = [f"{words.count(word)} {word}" for word in (*VERDICTS, "no verdict") if word in words]
    return f"{len(words)} claim{'' if len(words) == 1 else 's'}: {', '.join(found)}"
