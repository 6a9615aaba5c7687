"""The harness measures what it says, and the promises that need no stopwatch hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.harness import Cost

CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "sympy", "scipy.stats", "scipy.optimize", "matplotlib", "jinja2", "sklearn")
LIST = f"""
import sys
from reports.cli import main
status = main(["list"])
print("HEAVY", *[name for name in {HEAVY!r} if name in sys.modules])
sys.exit(status)
"""


def cost(value, aim=1.0):
    return Cost(f"a cost of {value}", value, aim, "s", value, value, 1)


def test_attest_list_imports_nothing_heavy():
    run = subprocess.run([sys.executable, "-c", LIST], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].split() == ["HEAVY"]


def test_both_projects_run_the_same_number_of_tests_and_all_do_as_expected(tmp_path):
    claims, plain = harness.write_projects(tmp_path, 12)
    seconds = [harness._run_tests(project, 24) for project in (claims, plain)]
    assert all(0 < one < 60 for one in seconds)
    results = json.loads((claims / "reports" / "out" / "results.json").read_text("utf-8"))
    assert len(results["claims"]) == 12
    assert results["problems"] == []
    assert not (claims / "reports" / "out" / "index.html").exists()


def test_a_project_that_loses_tests_is_no_measurement(tmp_path):
    with pytest.raises(OSError, match="ran 2 tests instead of 4"):
        harness._run_tests(harness.write_projects(tmp_path, 1)[1], 4)


def test_the_page_of_a_sample_is_measured():
    seconds, size = harness.rendering(claims=5, repeat=2)
    assert (seconds.unit, size.unit) == ("s", "MB")
    assert seconds.samples == 2
    assert 0 < size.value < 10


def test_a_start_is_measured_as_a_whole_process():
    measured = harness.start_up(repeat=1)
    assert measured.low <= measured.value <= measured.high
    assert measured.value > 0.01  # no Python starts faster


def test_a_missed_aim_shows_in_the_table_and_in_the_exit_status(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(harness, "start_up", lambda repeat: cost(0.2))
    monkeypatch.setattr(harness, "rendering", lambda claims, repeat: [cost(0.3), cost(9.9, aim=None)])
    monkeypatch.setattr(harness, "overhead", lambda checks, repeat: [cost(0.4)])
    monkeypatch.setattr(harness, "COMMANDS", {})
    assert harness.main([]) == 0
    assert "MISSED" not in capsys.readouterr().out
    monkeypatch.setattr(harness, "overhead", lambda checks, repeat: [cost(1.4)])
    assert harness.main(["--json", str(tmp_path / "costs.json")]) == 1
    assert capsys.readouterr().out.count("MISSED") == 1
    written = json.loads((tmp_path / "costs.json").read_text("utf-8"))
    assert [one["met"] for one in written["costs"]] == [True, True, True, False]
    assert written["environment"]["packages"]["pytest"]


def test_a_process_that_fails_is_reported_with_its_output(monkeypatch, capsys):
    def fail(repeat):
        raise subprocess.CalledProcessError(1, "pytest", output="the reason")

    monkeypatch.setattr(harness, "start_up", fail)
    assert harness.main([]) == 2
    assert "the reason" in capsys.readouterr().err


def test_a_whole_command_is_measured_once_and_a_failing_one_refused(monkeypatch):
    monkeypatch.setattr(harness, "COMMANDS", {"refused": (["json.tool"], 60.0)})
    with pytest.raises(subprocess.CalledProcessError):  # it takes no --out
        harness.command("refused")
    monkeypatch.setattr(
        harness, "COMMANDS", {"nothing": (["pytest", "--collect-only", "tests/test_structure.py"], 60.0)}
    )
    [measured] = harness.command("nothing")
    assert measured.samples == 1
    assert measured.met


def test_what_is_not_measured_anew_stays_with_its_own_commit(tmp_path):
    path = tmp_path / "costs.json"
    old = [{"name": name, "value": 1.0, "commit": "before"} for name in ("all tests", "attest list, whole process")]
    path.write_text(json.dumps({"environment": {}, "costs": old}), "utf-8")
    harness.write(path, [harness.Cost("all tests", 2.0, 3.0, "s", 2.0, 2.0, 1)])
    tests, start = json.loads(path.read_text("utf-8"))["costs"]
    assert (tests["value"], start["value"]) == (2.0, 1.0)
    assert start["commit"] == "before" != tests["commit"]


def test_one_cost_alone_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(harness, "command", lambda name: [harness.Cost(name, 1.0, 2.0, "s", 1.0, 1.0, 1)])
    assert harness.main(["--only", "all tests"]) == 0
    shown = capsys.readouterr().out
    assert "all tests" in shown
    assert "attest list" not in shown
