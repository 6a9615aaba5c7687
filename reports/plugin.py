"""The pytest plugin: each check becomes a test, each of its controls another, and their outcomes become verdicts.

This module runs in every process that runs tests. What only the process that reports does is in `reports.reporter`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from reports import environment, measured, profiles, selection
from reports.catalogue import CLAIMS_FOLDER
from reports.claim import Check, Claim, check_of, declared_below
from reports.evidence import Evidence, Inconclusive, Violation
from reports.randomness import Randomness, seed_for
from reports.reporter import Reporter, write_plan
from reports.results import describe, parameter_id
from reports.validate import collected_mistake, mistakes

EVIDENCE = pytest.StashKey[Evidence]()
DEFAULT_OUT = "reports/out"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("attest", "claims and their verdicts")
    group.addoption("--paper", action="append", default=[], metavar="KEY", help="only the claims of this paper")
    group.addoption(
        "--claim", action="append", default=[], metavar="KEY", help="only this claim, as paper/slug or slug"
    )
    group.addoption("--level", action="append", default=[], metavar="LEVEL", help="only checks at this level")
    group.addoption("--suite-seed", type=int, default=0, help="seed from which all others are derived (default 0)")
    group.addoption("--profile", choices=list(profiles.EXAMPLES), default="quick", help="how hard Hypothesis searches")
    group.addoption(
        "--scale", choices=measured.SCALES, default="small",
        help="full: the papers' own sizes where a check has them (`-m scaled` selects those); a GPU makes it minutes",
    )  # fmt: skip
    group.addoption("--out", metavar="DIR", help="folder for results.json, junit.xml, index.html (default reports/out)")
    group.addoption(
        "--corpus", type=Path, metavar="PATH", help="text for pre-training on a GPU (default: what is there)"
    )
    group.addoption(
        "--benchmarks", type=Path, metavar="DIR",
        help="times that `python -m benchmarks --json DIR` kept, of this GPU or, without one, of any; a run on a GPU "
             "measures them where it is not given",
    )  # fmt: skip
    group.addoption("--title", help="title of the page")
    group = parser.getgroup("attest checkpoint", "claims about a checkpoint of your own, and no others")
    group.addoption(
        "--checkpoint", metavar="DIR",
        help="a Hugging Face directory with safetensors and a tokenizer; write --checkpoint=DIR, with the sign",
    )  # fmt: skip
    group.addoption("--text", metavar="FILE", help="text for it to read, UTF-8 (default: Python's own help texts)")
    group.addoption("--questions", metavar="FILE", help="JSON lines with the fields question, choices, answer")
    group.addoption("--device", choices=("cpu", "cuda"), help="where it runs (default: cuda where there is one)")
    group.addoption(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of its weights (default float32)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-profile", None):
        raise pytest.UsageError("Attest has its own Hypothesis profiles: use --profile quick, full or nightly")
    profiles.load(config.getoption("--profile"))
    config.option.out = config.option.out or DEFAULT_OUT
    config.option.title = config.option.title or "Attest"
    config.addinivalue_line("markers", "scaled: a check that has a version at the paper's own size, for --scale full")
    config.addinivalue_line("markers", "checkpoint: a check of the user's own model, behind --checkpoint")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reporter(config), "attest-reporter")


def pytest_report_header(config: pytest.Config) -> str:
    return f"attest: profile {config.getoption('--profile')}, suite seed {config.getoption('--suite-seed')}"


# -- collection --------------------------------------------------------------------------------------------------------


class ClaimModule(pytest.Module):
    """A test file; if it declares claims, they must be in order before anything runs."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        collected = list(super().collect())
        root = self.config.rootpath
        declared = declared_below(root)
        claims = [claim for claim in declared if claim.file == str(self.path)]
        if claims:
            found = mistakes(claims, declared, root)
            functions = {
                item.function.__name__: item.function for item in collected if isinstance(item, pytest.Function)
            }
            place = os.path.relpath(self.path, root)
            found += [what for name, one in functions.items() if (what := collected_mistake(one, f"{place}: {name}"))]
            if found:
                raise self.CollectError("\n".join(found))
        return collected


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    return ClaimModule.from_parent(parent, path=module_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    check = check_of(metafunc.function)
    if check is not None and "evidence" in metafunc.fixturenames:
        strict = not check.checkpoint  # a user's model may pass what ours does not: `reports.verdict` says so
        rejected = pytest.mark.xfail(strict=strict, raises=Violation, reason="a control must be rejected")
        variants = [pytest.param(None, id=parameter_id(None))]
        variants += [pytest.param(name, id=parameter_id(name), marks=rejected) for name in check.controls]
        metafunc.parametrize("evidence", variants, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if (check := _check(item)) is not None:
            for marker in ("scaled", "checkpoint"):
                if getattr(check, marker):
                    item.add_marker(marker)
    chosen = selection.Selection.from_options(config)
    if not chosen:
        return
    unknown = chosen.mistake(_claims_of(items))
    if unknown and not hasattr(config, "workerinput"):
        raise pytest.UsageError(unknown)
    kept = [] if unknown else [item for item in items if (check := _check(item)) is not None and chosen.includes(check)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept
    config.stash[selection.MISTAKE] = unknown


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Say what is going to run, so that what then does not report can be told as lost."""
    items = [(item, check) for item in session.items if (check := _check(item)) is not None]
    for item, check in items:
        item.user_properties += [("claim", check.claim.key), ("kind", check.kind), ("level", check.level)]
    root = session.config.rootpath
    declared = declared_below(root)
    tests = sum(1 + len(check.controls) for claim in declared for check in claim.checks)
    files = {Path(claim.file) for claim in declared}
    write_plan(session.config, {
        "claims": [describe(claim, root) for claim in dict.fromkeys(check.claim for _, check in items)],
        "selected": [item.nodeid for item, _ in items],
        "complete": not selection.Selection.from_options(session.config)
        and len(items) == tests
        and files.issuperset((root / CLAIMS_FOLDER).rglob("test_*.py")),
        "mistake": session.config.stash.get(selection.MISTAKE, None),
    })  # fmt: skip


def _check(item: pytest.Item) -> Check | None:
    return check_of(item.obj) if isinstance(item, pytest.Function) else None


def _claims_of(items: Iterable[pytest.Item]) -> list[Claim]:
    return list(dict.fromkeys(check.claim for item in items if (check := _check(item)) is not None))


# -- one test ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """Records what the check measures, and asserts it: see `reports.evidence.Evidence`."""
    check = _check(request.node)
    recorded = Evidence(check.controls.get(request.param or "", {}) if check is not None else {})
    request.node.stash[EVIDENCE] = recorded
    return recorded


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Randomness:
    """Generators seeded by a hash of suite seed, claim and axes: see `reports.randomness.Randomness`."""
    check = _check(request.node)
    return Randomness(request.config.getoption("--suite-seed"), check.claim.key if check else request.node.nodeid)


@pytest.fixture
def paper_rng(request: pytest.FixtureRequest) -> Randomness:
    """As `rng`, but the same in all claims of a paper: for experiments whose results several of them judge."""
    check = _check(request.node)
    return Randomness(request.config.getoption("--suite-seed"), check.claim.paper if check else request.node.nodeid)


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> str:
    """`small`, or `full`: the paper's own sizes."""
    return str(request.config.getoption("--scale"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a check, with the control's broken subject in place of the true one."""
    check = check_of(pyfuncitem.obj)
    if check is None:
        return None
    recorded = pyfuncitem.stash[EVIDENCE]
    arguments = {name: value for name, value in pyfuncitem.funcargs.items() if name in check.arguments}
    if hasattr(pyfuncitem.obj, "hypothesis"):  # then `given` passes on what is replaced
        from hypothesis import seed

        seed(seed_for(pyfuncitem.config.getoption("--suite-seed"), check.claim.key, check.name))(pyfuncitem.obj)
    else:
        arguments |= recorded.replaced
    try:
        pyfuncitem.obj(**arguments)
    except Inconclusive as undecided:
        pytest.skip(f"inconclusive: {undecided}")
    except Violation as violation:
        if check.checkpoint and _control(pyfuncitem) is None:  # a result about the user's model, no failure
            pytest.xfail(str(violation))
        raise
    if not recorded.cases:
        pytest.fail("no case met the hypothesis: the check ended without reaching an expectation")
    return True


def _control(item: pytest.Function) -> str | None:
    name = item.callspec.params["evidence"]
    return name if isinstance(name, str) else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if _check(item) is None:
        return (yield)
    assert isinstance(item, pytest.Function)
    if call.excinfo is not None and isinstance(call.excinfo.value, Violation) and _control(item) is not None:
        # As it must. Nobody reads the traceback of a rejected control, for which pytest would parse three whole files.
        item.repr_failure = _one_line  # type: ignore[method-assign]
    report = yield
    if call.when == "call" or call.excinfo is not None:
        report.attest = _result(item, call)  # type: ignore[attr-defined]  # xdist carries such attributes along
    return report


def _one_line(excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
    return str(excinfo.value)


def _result(item: pytest.Function, call: pytest.CallInfo[None]) -> dict[str, Any]:
    """What one test says of its check, as JSON: the outcome, why, and all that was measured."""
    recorded = item.stash.get(EVIDENCE, Evidence())
    error = call.excinfo.value if call.excinfo is not None else None
    outcome, why = _outcome(error, recorded, control=_control(item) is not None)
    violated = recorded.violated.to_json() if recorded.violated is not None else None
    return {
        "outcome": outcome,
        "why": why,
        "seconds": call.duration,
        "evidence": recorded.to_json(),
        "violated": violated,
        "origin": recorded.origin,
    }


def _outcome(error: BaseException | None, recorded: Evidence, *, control: bool) -> tuple[str, str]:
    text = str(error).strip().split("\n")[0][:500] if error is not None else ""
    if isinstance(error, pytest.skip.Exception):
        undecided = text.removeprefix("inconclusive: ")
        return ("inconclusive", undecided) if undecided != text else ("not run", text)
    if isinstance(error, Violation | pytest.xfail.Exception):
        return ("rejected" if control else "violated"), text
    if not recorded.cases and type(error).__name__ in ("Failed", "Unsatisfiable"):
        return ("error" if control else "no case"), text
    if error is not None:
        return "error", f"{type(error).__name__}: {text}"
    return ("passed", "the check did not notice the broken subject") if control else ("held", "")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["attest_device"] = environment.device()
