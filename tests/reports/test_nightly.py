"""The night on a GPU: every step runs, what fails is told, and a slower number fails nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reports import cli, nightly, results
from reports.nightly import Step
from tests.reports import sample_results as sample

ROOT = Path(__file__).parents[2]
OPERATIONS = ["product", "sum"]
STEPS = nightly.steps(OPERATIONS, "out")
PAPER = {"key": "a2024", "title": "A", "authors": [], "year": "2024", "venue": "", "url": ""}
AGREES = sample.claim("a2024", "fast")
DIFFERS = sample.claim(
    "a2024", "slow", verdict="refuted", agrees=False, why="slower | <b>", recorded={"verdict": "supported",
    "level": "benchmark", "measured": None},
)  # fmt: skip


class Machine:
    """Answers each command as the test wants, and writes the results that a run would have left."""

    def __init__(self, root, claims=(AGREES,), failing=()):
        self.root, self.claims, self.failing = root, list(claims), failing
        self.ran = []

    def __call__(self, step):
        self.ran.append(step.name)
        for out in (one.removeprefix("--out=") for one in step.command if one.startswith("--out=")):
            results.save(self.root / out / "results.json", sample.results(self.claims, [PAPER]))
        if step.name == "operations" and step.name not in self.failing:
            return 0, "\n".join(OPERATIONS) + "\n"
        return (1, f"{step.name} | went <wrong>") if step.name in self.failing else (0, f"{step.name} in order")


def night(tmp_path, **given):
    machine = Machine(tmp_path, **given)
    status = nightly.nightly(tmp_path, "out", machine)
    path = tmp_path / "out" / "summary.md"
    return status, machine.ran, path.read_text("utf-8") if path.exists() else ""


def test_all_steps_run_in_order_and_the_summary_names_the_gpu(tmp_path):
    status, ran, summary = night(tmp_path)
    assert status == 0
    assert ran == ["GPU", "operations", *(step.name for step in STEPS)]
    assert ran[2:6] == ["gate of product", "gate of sum", "times of product", "times of sum"]
    assert summary.startswith("# Attest nightly: GPU in order\n")
    assert summary.count("| passed |") == len(STEPS)
    assert "No verdict differs from the record." in summary


@pytest.mark.parametrize("failing", [step.name for step in STEPS])
def test_a_step_that_fails_is_told_and_the_rest_goes_on(tmp_path, failing):
    status, ran, summary = night(tmp_path, failing=(failing,))
    assert status == 1
    assert len(ran) == 2 + len(STEPS)
    assert f"| {failing} | **failed** (1) |" in summary
    assert f"<pre>{failing} | went &lt;wrong&gt;</pre>" in summary


def test_a_verdict_that_differs_from_the_record_fails_the_night(tmp_path):
    status, _, summary = night(tmp_path, claims=[AGREES, DIFFERS])
    assert status == 1
    assert "| a2024/slow | supported (benchmark) | refuted (property) | slower \\| &lt;b&gt; |" in summary
    assert "a2024/fast" not in summary


def test_a_claim_without_a_verdict_fails_the_night(tmp_path):
    lost = sample.claim("a2024", "lost", verdict=None, level=None, recorded=None, why="it failed")
    status, _, summary = night(tmp_path, claims=[lost])
    assert (status, "| a2024/lost | - | no verdict | it failed |" in summary) == (1, True)


def test_a_run_that_left_no_results_is_no_agreement(tmp_path):
    machine = Machine(tmp_path)
    assert (
        nightly.nightly(tmp_path, "out", lambda step: (0, "") if step.name == "claims at full scale" else machine(step))
        == 1
    )
    summary = (tmp_path / "out" / "summary.md").read_text("utf-8")
    assert "Not read:" in summary
    assert "full/results.json" in summary


def test_a_slower_number_is_shown_and_fails_nothing(tmp_path):
    machine = Machine(tmp_path)

    def slower(step):
        status, output = machine(step)
        return status, "time against the record: 1.9 of it" if step.name == "times of sum" else output

    assert nightly.nightly(tmp_path, "out", slower) == 0
    assert "1.9 of it" in (tmp_path / "out" / "summary.md").read_text("utf-8")


def test_without_a_gpu_the_error_names_what_can_be_done(tmp_path, capsys):
    status, ran, summary = night(tmp_path, failing=("GPU",))
    assert (status, ran, summary) == (2, ["GPU"], "")
    told = capsys.readouterr().err
    assert "nightly needs a GPU: GPU | went <wrong>" in told
    assert "`attest run` checks all that needs none" in told


def test_kernels_that_cannot_be_listed_end_the_night_at_once(tmp_path, capsys):
    status, ran, _ = night(tmp_path, failing=("operations",))
    assert (status, ran) == (2, ["GPU", "operations"])
    assert "the kernels cannot be listed: operations | went <wrong>" in capsys.readouterr().err


def test_a_process_that_hangs_is_stopped_and_what_it_said_is_kept():
    code = "import time; print('here', flush=True); time.sleep(60)"
    status, output = nightly.in_a_process(Step("hang", [sys.executable, "-c", code], limit=2.0), ROOT)
    assert status == nightly.TIMED_OUT
    assert output.startswith("here")
    assert "stopped after 2 s" in output
    assert nightly.in_a_process(Step("fail", [sys.executable, "-c", "raise SystemExit('why')"]), ROOT) == (1, "why\n")


def test_the_commands_of_the_night_exist():
    for step in STEPS:
        module = step.command[2]
        assert step.command[:2] == [sys.executable, "-m"]
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists() or (ROOT / module / "__main__.py").exists()
    told = subprocess.run([*nightly.ATTEST, "nightly", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert nightly.OUT in told.stdout


def test_the_command_line_hands_the_checkout_and_the_folder_on(monkeypatch):
    asked = []
    monkeypatch.setattr(nightly, "nightly", lambda root, out: asked.append((root, out)) or 0)
    monkeypatch.chdir(ROOT)
    assert cli.main(["nightly", "--out", "elsewhere"]) == 0
    assert asked == [(ROOT, "elsewhere")]


def test_the_workflow_calls_it_and_shows_the_summary_whatever_happened():
    text = (ROOT / ".github" / "workflows" / "nightly-gpu.yml").read_text("utf-8")
    assert "tox run -e nightly" in text
    assert f'{nightly.OUT}/summary.md >> "$GITHUB_STEP_SUMMARY"' in text
    assert text.count("if: always()") == 2
    assert json.dumps(["self-hosted", "gpu"]).replace('"', "") in text
