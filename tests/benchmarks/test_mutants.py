"""The mutation run finds what is untested, and says when it cannot tell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

plugins = pytest.importorskip("cosmic_ray.plugins", reason="needs cosmic-ray: pip install --group mutants")

from benchmarks.affected_tests import NoTests, files_testing  # noqa: E402
from benchmarks.mutant_runs import Baseline, Outcome, RunError  # noqa: E402
from benchmarks.mutants import load_waivers, sample, summary, text  # noqa: E402
from benchmarks.mutation import MISTAKEN_FOR, Mutants, behaviour, changed_lines, mutants_of  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[2]
MODULE = """
from __future__ import annotations


def area(width: float, height: float) -> float:
    return width * height


def outline(width: float, height: float) -> float:
    return width + height


def ceiling(x: float) -> float:
    return max(x, 3)


def untested(x):
    return x - 2
"""
CLAIM = r"""
from hypothesis import strategies as st
from reports.claim import Claim, given
from theory.shapes import area, outline

rectangle = Claim(
    paper="somebody2024", slug="rectangle", where="Theorem 1", says="An area is a product.", formula="w h", gap="None."
)


@rectangle.check("exact", controls={"half the outline": {"measure": outline}})
@given(width=st.integers(1, 9), height=st.integers(1, 9))
def test_area_is_a_sum_of_columns(evidence, width, height, *, measure=area):
    "A rectangle is made of columns."
    evidence.expect("area", measure(width, height), equals=sum(height for _ in range(width)), error=0)
"""
UNIT_TEST = """
from theory.shapes import ceiling

def test_ceiling():
    assert ceiling(2) == 3 and ceiling(5) == 5
"""


@pytest.fixture
def project(tmp_path):
    """A checkout with one module: a function under a claim, one under a unit test, one under none."""
    for name, content in {
        "theory/__init__.py": "", "theory/shapes.py": MODULE, "tests/claims/test_shapes.py": CLAIM,
        "tests/theory/test_shapes.py": UNIT_TEST, "conftest.py": 'pytest_plugins = ["reports.plugin"]\n',
        "pytest.toml": '[pytest]\nstrict = true\naddopts = ["--import-mode=importlib"]\n',
        "references.bib": "@article{somebody2024, title = {Shapes}, author = {Body, Some}, year = {2024}}\n",
        "benchmarks/equivalent_mutants.toml": "",
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def run(project, *arguments):
    command = [sys.executable, "-m", "benchmarks.mutants", *arguments]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    # The project's own folder `benchmarks` comes first on the path, but is no package: ours is, and wins.
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)


def waiver(before, after, function="untested"):
    fields = {"module": "theory/shapes.py", "function": function, "before": before, "after": after, "reason": "a test"}
    return "[[equivalent]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())


def mutants(tmp_path, source):
    (tmp_path / "m.py").write_text(source)
    return mutants_of(tmp_path, "m.py")


def results(tmp_path, source, statuses):
    made = mutants(tmp_path, source)
    outcomes = {
        one: Outcome(s, "tests/claims/test_m.py::t", 0.1) for one, s in zip(made.runnable, statuses, strict=True)
    }
    return made, outcomes


def test_it_tells_claims_unit_tests_and_survivors_apart_and_leaves_the_checkout_alone(project):
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    done = run(project, "theory/shapes.py", "--json", str(project.parent / "report.json"), "-n", "2")
    report = json.loads((project.parent / "report.json").read_text())["modules"][0]
    assert done.returncode == 1, done.stderr
    assert [one["after"] for one in report["survivors"]] == [
        "return width - height", "return x + 2", "return x * 2", "return x - 3", "return x - 1",
    ]  # fmt: skip
    claim = "tests/claims/test_shapes.py::test_area_is_a_sum_of_columns"
    # width * height in the broken subject: nothing but the control that now passes can notice.
    assert report["killers"].pop(f"{claim}[control: half the outline]") == 1
    assert set(report["killers"]) == {f"{claim}[claim]", "tests/theory/test_shapes.py::test_ceiling"}
    assert report["killed"] > report["killed_by_claims"] > 0
    assert report["score"] == report["killed"] / (report["killed"] + 5)
    assert "survived: theory/shapes.py:18 in untested" in done.stdout
    assert "    -return x - 2\n    +return x + 2" in done.stdout
    assert "below the aim of 95%" in done.stdout
    assert before == {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}


def test_a_suite_that_fails_before_any_mutation_is_refused(project):
    (project / "tests/theory/test_shapes.py").write_text("def test_wrong():\n    assert 1 == 2\n")
    done = run(project, "theory/shapes.py")
    assert done.returncode == 2
    assert "fail before any mutation; make them pass first" in done.stderr
    assert "tests/theory/test_shapes.py::test_wrong" in done.stderr


def test_tests_that_never_load_the_module_are_refused(project):
    (project / "tests/claims/test_shapes.py").unlink()
    (project / "tests/theory/test_shapes.py").write_text("def test_nothing():\n    pass\n")
    done = run(project, "theory/shapes.py")
    assert done.returncode == 2
    assert "made impossible to import" in done.stderr


def test_a_mutant_that_never_ends_is_killed_by_the_clock(project):
    (project / "theory/shapes.py").write_text("def halve(n):\n    while n > 1:\n        n = n // 2\n    return n\n")
    (project / "tests/claims/test_shapes.py").unlink()
    (project / "tests/theory/test_shapes.py").write_text(
        "from theory.shapes import halve\n\ndef test_halve():\n    assert halve(8) == 1\n"
    )
    done = run(project, "theory/shapes.py", "--timeout", "1.5", "-n", "2")
    assert "out of time: theory/shapes.py:3 in halve" in done.stdout, done.stdout + done.stderr
    assert "2 of them by running out of time" in done.stdout  # n * 2 and n // 1


def test_a_missing_module_is_refused(project):
    done = run(project, "theory/nothing.py")
    assert done.returncode == 2
    assert "no module theory/nothing.py" in done.stderr


def test_a_module_without_tests_is_refused(tmp_path):
    (tmp_path / "theory").mkdir()
    (tmp_path / "theory/lonely.py").write_text("")
    with pytest.raises(NoTests, match=r"write one of them"):
        files_testing(tmp_path, "theory/lonely.py")


def test_claims_are_found_through_imports_inside_functions_and_other_modules(project):
    (project / "theory/outer.py").write_text("def f():\n    from theory.shapes import area\n    return area\n")
    (project / "tests/claims/test_outer.py").write_text("import theory.outer\n")
    (project / "tests/claims/test_other.py").write_text("import theory\n")
    assert files_testing(project, "theory/shapes.py") == [
        "tests/claims/test_outer.py", "tests/claims/test_shapes.py", "tests/theory/test_shapes.py",
    ]  # fmt: skip


def test_a_waived_survivor_does_not_count(tmp_path):
    made, outcomes = results(tmp_path, "def f(x):\n    return not x\n", ["survived"])
    entry = {"module": "m.py", "function": "f", "before": "return not x", "after": "return  x", "reason": "a test"}
    report = summary("m.py", made, made.runnable, outcomes, Baseline([]), [entry])
    assert (report["score"], report["survivors"], report["stale_waivers"]) == (1.0, [], [])
    assert report["equivalent"][0]["reason"] == "a test"


@pytest.mark.parametrize("after", ["return  x", "return no_such_mutant"])
def test_a_waiver_that_matches_no_survivor_is_stale(tmp_path, after):
    made, outcomes = results(tmp_path, "def f(x):\n    return not x\n", ["killed"])
    entry = {"module": "m.py", "function": "f", "before": "return not x", "after": after, "reason": "a test"}
    report = summary("m.py", made, made.runnable, outcomes, Baseline([]), [entry])
    assert [one["after"] for one in report["stale_waivers"]] == [after]
    shown = {"seconds": 1, "workers": 1} | report
    assert "stale waiver" in text(shown)


def test_a_waiver_whose_mutant_was_not_drawn_is_left_alone(tmp_path):
    made = mutants(tmp_path, "def f(x):\n    return not x\n")
    entry = {"module": "m.py", "function": "f", "before": "return not x", "after": "return  x", "reason": "a test"}
    assert summary("m.py", made, [], {}, Baseline([]), [entry])["stale_waivers"] == []


@pytest.mark.parametrize("broken", ['module = "m"', waiver("a", "b").replace('"a test"', '" "'), "= 3"])
def test_a_waiver_without_a_reason_or_a_field_is_refused(tmp_path, broken):
    path = tmp_path / "waivers.toml"
    path.write_text(broken if "[[" in broken or broken[0] == "=" else f"[[equivalent]]\n{broken}\n")
    with pytest.raises(RunError):
        load_waivers(path)


def test_a_sample_is_drawn_from_its_seed_in_the_order_of_the_module(tmp_path):
    made = mutants(tmp_path, "def f(a, b, c):\n    return a + b * c - 7\n").runnable
    drawn = sample(made, 4, seed=5)
    assert drawn == sample(made, 4, seed=5) != sample(made, 4, seed=6)
    assert drawn == [one for one in made if one in drawn]
    assert sample(made, None, 0) == made


def test_claims_run_before_unit_tests_and_last_killers_first():
    seconds = {"tests/theory/a": 0.1, "tests/claims/slow": 9.0, "tests/claims/quick": 0.2}
    order = Baseline([], seconds).with_first({("f", "tests/claims/slow"): 2}, "f").seconds
    assert list(order) == ["tests/claims/slow", "tests/claims/quick", "tests/theory/a"]


@pytest.mark.parametrize(
    "source",
    [
        '"""One + 1."""\n',
        "def f(x: 'int | None') -> 'int | None':\n    pass\n",
        "x: int | None\n",
        "def f(x):\n    raise ValueError(f'{1 + 1} {x - 1}')\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    x = 1 + 1\n",
        "def f(a, *, b):\n    pass\n",
    ],
)
def test_what_is_no_behaviour_is_not_run(tmp_path, source):
    assert mutants(tmp_path, source).runnable == []


def test_mutants_of_arrays_are_made_too(tmp_path):
    made = mutants(tmp_path, "def f(a, b):\n    return max(a.T @ b)\n").runnable
    assert {one.after for one in made} == {"return max(a @ b)", "return max(a.T * b)", "return min(a.T @ b)"}


def test_equal_mutants_of_equal_lines_are_numbered(tmp_path):
    made = mutants(tmp_path, "def f(a):\n    a = not a\n    a = not a\n    return a\n").runnable
    assert [(one.line, one.nth) for one in made] == [(2, 1), (3, 2)]
    assert len({one.key for one in made}) == 2


def test_a_mutant_keeps_its_key_when_the_module_grows_above_it(tmp_path):
    source = "def f(a, b):\n    return a + b\n"
    old, new = mutants(tmp_path, source), mutants(tmp_path, "X = 'new'\n\n\n" + source)
    assert [one.key for one in old.runnable] == [one.key for one in new.runnable]
    assert [one.line + 3 for one in old.runnable] == [one.line for one in new.runnable]


def test_every_operator_we_name_is_one_of_cosmic_rays():
    named = {
        f"core/Replace{kind}_{before}_{after}"
        for kind, table in MISTAKEN_FOR.items()
        for before, afters in table.items()
        for after in afters.split()
    }
    assert named <= set(plugins.operator_names())


def test_changed_lines_are_found_from_both_ends():
    assert changed_lines("a\n  b\nc\n", "a\n  d\nc\n") == (1, "b", "d")
    assert changed_lines("\n@x\ndef f(): pass\n", "\ndef f(): pass\n") == (1, "@x", "")


def test_behaviour_sees_values_but_no_words():
    assert behaviour("x = 1") != behaviour("x = 2")
    assert behaviour("def f(x: int = 1) -> str:\n    'a'\n") == behaviour("def f(x: float = 1) -> int:\n    'b'\n")


def test_mutants_that_are_no_python_are_counted_apart(tmp_path):
    assert isinstance(mutants(tmp_path, "x = 1\n"), Mutants)
    assert mutants(tmp_path, "def f(a, *, b):\n    pass\n").incompetent == 1
