"""Several processes: equal results, lost workers; seeds and profiles that depend on nothing else."""

import os

import pytest

SEVERAL = """
import os

for slug in ("one", "two", "three"):
    def declare(slug=slug):
        squares = claim(slug)

        @squares.check("property", controls={"cube": {"power": 3}, "σ": {"power": 5}})
        @given(x=st.floats(-1e3, 1e3))
        def test_squares(evidence, x, *, power=2):
            \"\"\"Squares.\"\"\"
            evidence.expect("square", x**power, at_least=0)

        test_squares.__name__ = f"test_{slug}"
        globals()[f"test_{slug}"] = test_squares
    declare()
"""

KILLED = """
import os
import signal

alive = claim("alive")
lost = claim("lost")

@alive.check("exact", controls={"cube": {"power": 3}})
def test_alive(evidence, *, power=2):
    \"\"\"Squares.\"\"\"
    evidence.expect("square", (-2) ** power, at_least=0)

@lost.check("exact", controls={"cube": {"power": 3}})
def test_lost(evidence, *, power=2):
    \"\"\"Squares, and then the process is killed.\"\"\"
    if power == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    evidence.expect("square", (-2) ** power, at_least=0)
"""


def without_times(results):
    """Results less what may differ between two runs."""
    if isinstance(results, dict):
        return {
            key: without_times(value) for key, value in results.items() if key not in ("seconds", "started", "command")
        }
    return [without_times(item) for item in results] if isinstance(results, list) else results


def test_one_process_and_several_write_the_same_results(suite):
    suite.declare(SEVERAL)
    found = []
    for workers in ("0", "2"):
        suite.run_in_a_process("-n", workers)
        found.append(without_times(suite.results))
    assert found[0] == found[1]
    assert [claim["verdict"] for claim in found[0]["claims"]] == ["supported"] * 3


def test_another_suite_seed_tries_other_examples(suite):
    suite.declare(SEVERAL)
    margins = []
    for seed in ("0", "0", "1"):
        suite.run("--suite-seed", seed)
        margins.append(
            [check["controls"][0]["smallest_case"] for claim in suite.results["claims"] for check in claim["checks"]]
        )
        margins[-1].append(
            [q["evaluations"] for c in suite.results["claims"] for k in c["checks"] for q in k["quantities"]]
        )
    assert margins[0] == margins[1]
    assert suite.results["environments"][0]["suite_seed"] == 1


@pytest.mark.parametrize("restarts", ["0", "1"])
def test_a_worker_killed_in_the_middle_shows_its_check_as_lost_and_the_run_fails(suite, restarts):
    suite.declare(KILLED)
    result = suite.run_in_a_process("-n", "2", f"--max-worker-restart={restarts}")
    assert result.ret != 0
    claim = suite.claim("lost")
    assert claim["checks"][0]["outcome"] == "lost"
    assert claim["verdict"] is None
    assert any("was lost" in problem for problem in suite.results["problems"])
    assert {one["slug"] for one in suite.results["claims"]} == {"alive", "lost"}


def test_our_profiles_hold_where_a_ci_variable_makes_hypothesis_repeat_itself(suite, monkeypatch):
    suite.declare("""
    from hypothesis import settings

    profiles = claim("profiles")

    @profiles.check("exact", controls={"Hypothesis' own": {"name": "ci"}})
    def test_profile(evidence, *, name=None):
        \"\"\"The profile in force neither derandomises nor forgets its name.\"\"\"
        profile = settings.default if name is None else settings.get_profile(name)
        evidence.expect("derandomised", int(profile.derandomize), equals=0, error=0)
        evidence.note(f"{profile.max_examples} {profile.database}")
    """)
    monkeypatch.setenv("CI", "true")
    notes = []
    for profile in ("quick", "full", "nightly"):
        result = suite.run_in_a_process("--profile", profile)
        result.assert_outcomes(passed=1, xfailed=1)
        notes += suite.claim("profiles")["checks"][0]["notes"]
    assert notes[:2] == ["100 None", "1000 None"]
    assert notes[2].startswith("10000 DirectoryBasedExampleDatabase")


def test_rng_depends_on_suite_seed_claim_and_axes_alone(suite):
    suite.declare("""
    random = claim("random")

    @random.check("exact", controls={"shifted": {"shift": 1}})
    def test_numbers(evidence, rng, *, shift=0):
        \"\"\"Numbers.\"\"\"
        evidence.note(str(rng("a", 1).integers(10**9)))
        evidence.true("pure", rng.seed("a", 1) == rng.seed("a", 1) + shift)
        evidence.true("prefixed", rng.seed("ab", "c") != rng.seed("a", "bc"))
    """)
    drawn = []
    for seed in ("0", "0", "7"):
        suite.run("--suite-seed", seed)
        drawn.append(suite.claim("random")["checks"][0]["notes"])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_run_that_needs_no_torch_does_not_import_it(suite):
    suite.declare("""
    import sys

    lean = claim("lean")

    @lean.check("exact", controls={"torch": {"module": "sys"}})
    def test_lean(evidence, *, module="torch"):
        \"\"\"No torch.\"\"\"
        evidence.true("absent", module not in sys.modules)
    """)
    result = suite.run_in_a_process()
    result.assert_outcomes(passed=1, xfailed=1)


def test_the_plan_folder_is_removed(suite, monkeypatch, tmp_path):
    suite.declare(SEVERAL)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    suite.run_in_a_process("-n", "1")
    assert not [name for name in os.listdir(tmp_path) if name.startswith("attest-")]
