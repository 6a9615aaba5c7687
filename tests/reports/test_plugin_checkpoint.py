"""Claims about the user's own model: whatever it does is a result, and never a change of the record."""

import pytest

from reports.cli import main

NUMBERS = '''
import pytest

@pytest.fixture
def checkpoint(request):
    given = request.config.getoption("--checkpoint")
    if given is None:
        pytest.skip("needs --checkpoint DIR")
    return int(given)

large = claim("large")

@large.check("experiment", controls={"negative": {"sign": -1}})
def test_the_number_is_large(evidence, checkpoint, *, sign=1):
    """A number."""
    evidence.expect("number", sign * checkpoint, at_least=5)

squares = claim("squares")

@squares.check("exact", controls={"cube": {"power": 3}})
def test_squares_are_non_negative(evidence, *, power=2):
    """Squares."""
    evidence.expect("square", (-2) ** power, at_least=0)
'''
RECORD = """
["somebody2024/large"]
verdict = "not run"

["somebody2024/squares"]
verdict = "supported"
level = "exact"
"""


@pytest.fixture
def numbers(suite):
    suite.declare(NUMBERS)
    suite.record(RECORD)
    return suite


def test_without_a_checkpoint_such_a_claim_is_not_run(numbers):
    assert numbers.run().ret == 0
    assert (numbers.claim("large")["verdict"], numbers.claim("large")["why"]) == ("not run", "needs --checkpoint DIR")


def test_with_a_checkpoint_such_claims_alone_are_run(numbers):
    assert numbers.run("--checkpoint=7").ret == 0
    assert [one["slug"] for one in numbers.results["claims"]] == ["large"]
    assert numbers.claim("large")["verdict"] == "supported"
    assert not numbers.results["selection"]["complete"]


def test_the_marker_selects_them_too(numbers):
    assert numbers.run("-m", "checkpoint").ret == 0
    assert [one["slug"] for one in numbers.results["claims"]] == ["large"]


def test_a_model_that_behaves_otherwise_refutes_the_claim_and_fails_nothing(numbers):
    result = numbers.run("--checkpoint=3")
    result.assert_outcomes(xfailed=2)
    assert result.ret == 0
    claim = numbers.claim("large")
    assert (claim["verdict"], claim["level"], claim["agrees"]) == ("refuted", "experiment", None)
    assert claim["why"] == "not so on this checkpoint: number = 3, must be at least 5"
    assert claim["checks"][0]["outcome"] == "violated"
    assert numbers.results["problems"] == []


def test_a_control_that_the_model_passes_leaves_the_claim_undecided_and_fails_nothing(numbers):
    numbers.declare(NUMBERS.replace('{"sign": -1}', '{"sign": 2}'))
    assert numbers.run("--checkpoint=7").ret == 0
    claim = numbers.claim("large")
    assert claim["verdict"] == "inconclusive"
    assert "control 'negative' of test_the_number_is_large passed the check" in claim["why"]
    assert "on this checkpoint the check cannot tell" in claim["why"]


def test_a_control_that_stays_undecided_leaves_the_claim_undecided(numbers):
    numbers.declare(
        NUMBERS.replace(
            "    evidence.expect(", "    sign > 0 or evidence.inconclusive(needs='more')\n    evidence.expect("
        )
    )
    assert numbers.run("--checkpoint=7").ret == 0
    assert "was left undecided" in numbers.claim("large")["why"]


def test_an_error_on_a_checkpoint_is_no_result(numbers):
    assert numbers.run("--checkpoint=nonsense").ret == 1
    assert numbers.claim("large")["verdict"] in (None, "broken")
    assert "ValueError" in numbers.claim("large")["why"]


@pytest.mark.parametrize(("number", "verdict"), [("3", "refuted"), ("7", "supported")])
def test_no_verdict_on_a_checkpoint_disagrees_with_the_record_or_enters_it(numbers, monkeypatch, number, verdict):
    numbers.record(RECORD.replace("not run", "inconclusive"))
    assert numbers.run(f"--checkpoint={number}").ret == 0
    assert numbers.claim("large")["verdict"] == verdict
    monkeypatch.chdir(numbers.path)
    assert main(["accept"]) == 0
    text = (numbers.path / "reports/verdicts.toml").read_text()
    assert '["somebody2024/large"]\nverdict = "inconclusive"\n' in text
    assert '["somebody2024/squares"]\nverdict = "supported"\n' in text


def test_an_unrecorded_claim_of_a_checkpoint_enters_the_record_as_not_run(numbers, monkeypatch):
    numbers.record("")
    numbers.run("--checkpoint=7")
    monkeypatch.chdir(numbers.path)
    assert main(["accept"]) == 0
    assert (
        (numbers.path / "reports/verdicts.toml").read_text().endswith('["somebody2024/large"]\nverdict = "not run"\n')
    )


def test_a_claim_may_not_mix_checks_of_a_checkpoint_with_others(numbers):
    numbers.declare(NUMBERS.replace("@squares.check", "@large.check").replace('squares = claim("squares")\n', ""))
    result = numbers.run()
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*only some of its checks take the fixture `checkpoint`*"])


def test_the_command_runs_them_in_one_process(numbers, monkeypatch, capsys):
    monkeypatch.chdir(numbers.path)
    assert main(["checkpoint", "7", "--claims", "large", "--out", "elsewhere"]) == 0
    assert "1 claim: 1 supported" in capsys.readouterr().out
    assert (numbers.path / "elsewhere/index.html").exists()
    assert main(["checkpoint", "7", "--claims", "lage"]) == 2
