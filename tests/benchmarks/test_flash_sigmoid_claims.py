"""The claims on FlashSigmoid's speed, put to times that a test makes up: each can hold, and each can fail."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

from tests.benchmarks.bench_house import ROOT, House  # noqa: E402
from tests.benchmarks.planted import row  # noqa: E402

CLAIMS = ROOT / "tests" / "claims" / "operators" / "test_flash_sigmoid.py"
AS_CLAIMED = {
    "SDPA/flash": 1.3, "SDPA/cudnn": 1.1, "softmax twin": 1.2, "sigmoid with row maximum": 1.25,
    "sigmoid in float32": 1.1, "exp and divide": 1.15, "tanh": 0.9,
}  # fmt: skip


@pytest.fixture
def house(pytester, monkeypatch):
    bibliography = (ROOT / "references.bib").read_text("utf-8")
    return House(pytester, monkeypatch, CLAIMS.read_text("utf-8"), bibliography)


def planted(few=1.3, wide=1.1, **changes):
    """Cases at 196 and at three long lengths, in both directions; `wide` is cuDNN's backward pass at width 128."""
    slower = AS_CLAIMED | changes
    both = {name: factor for name, factor in slower.items() if name.startswith("SDPA")}
    long = [
        row(length, slower if not backward else both | ({"SDPA/cudnn": wide} if width == 128 else {}),
            width=width, causal=causal, backward=backward)
        for backward in (False, True) for width in (64, 128) for causal in (False, True)
        for length in (1024, 4096, 16_384)
    ]  # fmt: skip
    return [*long, row(196, slower | {"SDPA/flash": few})]


def verdicts(house, rows):
    house.keep(rows=rows)
    return {slug: claim["verdict"] for slug, claim in house.run_all(f"--benchmarks={house.folder}").items()}


def test_every_claim_is_as_expected_where_the_times_are_and_every_control_is_rejected(house):
    found = verdicts(house, planted())
    assert found.pop("no-gain-at-196-tokens") == "refuted"
    assert set(found.values()) == {"supported"}
    checks = [check for claim in house.results["claims"] for check in claim["checks"]]
    assert {control["outcome"] for check in checks for control in check["controls"]} == {"rejected"}
    assert [len(check["figures"]) for check in checks if check["figures"]] == [2]
    assert any("Time saved against SDPA/flash" in note for check in checks for note in check["notes"])


def test_times_that_are_equal_support_nothing(house):
    equal = verdicts(house, planted(few=1.0, wide=1.0, **dict.fromkeys(AS_CLAIMED, 1.0)))
    assert set(equal.values()) <= {None, "broken"}


def test_a_gain_below_the_stated_one_leaves_the_direction_and_fails_the_number(house):
    found = verdicts(house, planted(**{"SDPA/flash": 1.15}))
    assert found["forward-faster-than-flash-attention-2"] == "supported"
    assert found["forward-17-percent"] is None


def test_one_width_whose_backward_pass_is_slower_than_cudnns_is_enough(house):
    found = verdicts(house, planted(wide=0.95))
    assert found["backward-faster-than-cudnn"] is None
    assert found["forward-faster-than-cudnn"] == "supported"


def test_a_gain_that_stays_with_the_row_statistics_breaks_the_explanation(house):
    found = verdicts(house, planted(**{"sigmoid with row maximum": 1.0}))
    assert found["gain-comes-from-row-statistics"] == "broken"


def test_what_was_not_timed_leaves_its_claims_unrun(house):
    short = [one for one in planted() if one.fields["queries"] != 196 and not one.fields["backward"]]
    found = verdicts(house, short)
    assert found["no-gain-at-196-tokens"] == found["backward-2-to-6-percent"] == "not run"
    assert found["forward-17-percent"] == "supported"
