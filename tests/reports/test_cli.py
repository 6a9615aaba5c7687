"""The command line on a small project."""

import json
import subprocess
import sys

import pytest

from reports.cli import main

SQUARES = '''
squares = claim("squares")

@squares.check("exact", controls={"cube": {"power": 3}})
def test_squares_are_non_negative(evidence, *, power=2):
    """Squares [of] a few numbers."""
    evidence.expect("square", (-2) ** power, at_least=0)
'''


@pytest.fixture
def project(suite, monkeypatch):
    suite.declare(SQUARES)
    monkeypatch.chdir(suite.path)
    return suite


@pytest.fixture
def ran(project):
    project.run()
    return project


def attest(project, *arguments):
    """The command in a process of its own, as a user starts it."""
    command = [sys.executable, "-m", "reports", *arguments]
    return subprocess.run(command, cwd=project.path, capture_output=True, text=True, timeout=120, check=False)


def test_a_newcomer_runs_accepts_and_runs_again(project):
    first = attest(project, "run", "-n", "1")
    assert first.returncode == 1
    assert "somebody2024/squares: supported (exact), new to the record" in first.stdout
    accepted = attest(project, "accept")
    assert "somebody2024/squares: - -> supported (exact)" in accepted.stdout
    second = attest(project, "run", "-n", "0", "--claim", "squares", "--suite-seed", "5")
    assert second.returncode == 0, second.stdout
    assert "1 claim: 1 supported" in second.stdout
    assert "index.html" in second.stdout
    assert project.results["environments"][0]["suite_seed"] == 5


def test_list_shows_each_claim_with_its_recorded_verdict(project, capsys):
    project.record('["somebody2024/squares"]\nverdict = "supported"\nlevel = "exact"\n')
    assert main(["list"]) == 0
    assert "somebody2024/squares" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"key": "somebody2024/squares", "says": "A statement.", "verdict": "supported", "level": "exact"}
    ]


def test_list_starts_without_the_heavy_libraries(project):
    heavy = ("torch", "sympy", "scipy.stats", "matplotlib", "pytest", "jinja2", "jsonschema")
    code = f"import sys; from reports.cli import main; main(['list']); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=project.path, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")


def test_show_tells_all_of_a_claim(ran, capsys):
    assert main(["show", "squares"]) == 0
    text = capsys.readouterr().out
    for part in ("Theorem 1", "x^2", "Everything else.", "control: cube", "Squares [of] a few", "1 check held"):
        assert part in text
    assert main(["show", "somebody2024/squares", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["last"]["verdict"] == "supported"


def test_an_unknown_claim_suggests_near_names(project, capsys):
    assert main(["show", "sqares"]) == 2
    assert "did you mean squares" in capsys.readouterr().err


def test_render_writes_the_page_of_a_results_file(ran, tmp_path, capsys):
    (ran.path / "reports/out/index.html").unlink()
    assert main(["render", "reports/out/results.json"]) == 0
    assert "A statement." in (ran.path / "reports/out/index.html").read_text()
    assert main(["render", "reports/out/results.json", "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").exists()
    assert main(["render", "absent.json"]) == 2


def test_render_refuses_a_formula_that_cannot_be_set(ran, capsys):
    results = ran.results
    results["claims"][0]["formula"] = r"\frac{1}{"
    (ran.path / "bad.json").write_text(json.dumps(results))
    assert main(["render", "bad.json", "-o", "bad.html"]) == 2
    assert "somebody2024/squares" in capsys.readouterr().err
    assert not (ran.path / "bad.html").exists()


def test_diff_and_merge_say_what_changed(ran, capsys):
    old = ran.path / "reports/out/results.json"
    results = ran.results
    results["claims"][0]["level"] = "proof"
    new = ran.path / "new.json"
    new.write_text(json.dumps(results))
    assert main(["diff", str(old), str(old)]) == 0
    assert main(["diff", str(old), str(new)]) == 1
    assert "supported (proof)" in capsys.readouterr().out
    assert main(["diff", str(old), str(new), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["new"] == ["supported", "proof"]
    assert main(["merge", str(old), str(old), "-o", "merged.json"]) == 1
    captured = capsys.readouterr()
    assert "1 claim: 1 supported" in captured.out
    assert "new to the record" in captured.err


def test_accept_refuses_a_broken_run_and_leaves_the_record(ran, capsys):
    results = ran.results
    results["claims"][0]["verdict"] = "broken"
    (ran.path / "reports/out/results.json").write_text(json.dumps(results))
    assert main(["accept"]) == 2
    assert "mend these first" in capsys.readouterr().err
    assert not (ran.path / "reports/verdicts.toml").exists()


def test_outside_a_checkout_the_commands_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 2
    assert "is in no checkout of Attest" in capsys.readouterr().err


def test_a_file_of_claims_that_cannot_be_imported_is_named(project, capsys):
    (project.path / "tests/claims/test_bad.py").write_text("import nowhere\n")
    assert main(["list"]) == 2
    assert "tests/claims/test_bad.py: ModuleNotFoundError" in capsys.readouterr().err


def test_an_unknown_option_of_a_command_is_an_error(project, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["list", "--colour"])
    assert "unrecognized arguments: --colour" in capsys.readouterr().err
