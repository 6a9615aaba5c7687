"""From checks and controls to verdicts, by running pytest on small projects."""

HOLDS = """
squares = claim("squares")

@squares.check("exact", controls={"cube": {"power": 3}})
def test_squares_are_non_negative(evidence, *, power=2):
    \"\"\"Squares of a few numbers.\"\"\"
    for x in (-2, 0, 3):
        evidence.expect("square", x**power, at_least=0)
"""


def test_a_claim_whose_check_holds_and_whose_control_is_rejected_is_supported(suite):
    suite.declare(HOLDS)
    suite.record('["somebody2024/squares"]\nverdict = "supported"\nlevel = "exact"\n')
    result = suite.run()
    result.assert_outcomes(passed=1, xfailed=1)
    assert result.ret == 0
    claim = suite.claim("squares")
    assert (claim["verdict"], claim["level"], claim["agrees"]) == ("supported", "exact", True)
    [check] = claim["checks"]
    assert check["outcome"] == "held"
    assert check["cases"] == 3
    assert check["quantities"][0]["margin"] == 0
    [control] = check["controls"]
    assert control["outcome"] == "rejected"
    assert control["quantity"]["value"] == -8
    assert suite.results["problems"] == []


def test_a_control_that_passes_makes_its_claim_broken_and_the_run_fail(suite):
    suite.declare(HOLDS.replace('{"power": 3}', '{"power": 4}'))
    result = suite.run()
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == 1
    claim = suite.claim("squares")
    assert claim["verdict"] == "broken"
    assert "control 'cube' of test_squares_are_non_negative passed the check" in claim["why"]
    assert any("broken" in problem for problem in suite.results["problems"])


def test_a_control_that_fails_by_another_exception_is_no_rejection(suite):
    suite.declare(HOLDS.replace('{"power": 3}', '{"power": "two"}'))
    assert suite.run().ret == 1
    assert suite.claim("squares")["verdict"] == "broken"
    assert "TypeError" in suite.claim("squares")["why"]


def test_a_control_that_ends_in_nan_is_no_rejection(suite):
    suite.declare(HOLDS.replace('{"power": 3}', '{"power": float("nan")}').replace("(-2, 0, 3)", "(2, 3)"))
    assert suite.run().ret == 1
    assert "NotANumber" in suite.claim("squares")["why"]


def test_a_control_that_times_out_is_no_rejection(suite):
    source = HOLDS.replace('{"power": 3}', '{"power": "wait"}').replace(
        "    for x in", '    while power == "wait":\n        pass\n    for x in'
    )
    suite.declare(source)
    assert suite.run_in_a_process("--timeout=2").ret == 1
    assert suite.claim("squares")["verdict"] == "broken"
    assert "Timeout" in suite.claim("squares")["why"]


def test_a_control_that_ends_undecided_is_no_rejection(suite):
    suite.declare("""
    means = claim("means")

    @means.check("statistical", controls={"wide": {"spread": 1000}})
    def test_the_mean_is_positive(evidence, *, spread=1):
        \"\"\"A mean.\"\"\"
        evidence.mean_at_least("mean", [10 - spread, 10, 10 + spread] * 5, 0, alpha=1e-3)
    """)
    assert suite.run().ret == 1
    assert suite.claim("means")["verdict"] == "broken"


def test_a_control_of_an_undecided_check_may_be_undecided_too(suite):
    suite.declare("""
    means = claim("means")

    @means.check("statistical", controls={"exchanged": {"sign": -1}})
    def test_the_mean_is_positive(evidence, *, sign=1):
        \"\"\"A mean.\"\"\"
        evidence.mean_at_least("mean", [sign * 100, sign * -99, sign], 0, alpha=1e-3)
    """)
    suite.record('["somebody2024/means"]\nverdict = "inconclusive"\n')
    assert suite.run().ret == 0
    [check] = suite.claim("means")["checks"]
    assert (check["outcome"], check["controls"][0]["outcome"]) == ("inconclusive", "inconclusive")


def test_a_check_that_reaches_no_expectation_makes_its_claim_broken(suite):
    suite.declare(HOLDS.replace("(-2, 0, 3)", "range(0) if power == 2 else (-2, 0)"))
    assert suite.run().ret == 1
    claim = suite.claim("squares")
    assert claim["verdict"] == "broken"
    assert claim["checks"][0]["outcome"] == "no case"


def test_a_hypothesis_that_no_example_meets_makes_its_claim_broken(suite):
    suite.declare("""
    from hypothesis import assume

    squares = claim("squares")

    @squares.check("property", controls={"cube": {"power": 3}})
    @given(x=st.integers(-9, 9))
    def test_squares_are_non_negative(evidence, x, *, power=2):
        \"\"\"Squares.\"\"\"
        assume(power == 3)
        evidence.expect("square", x**power, at_least=0)
    """)
    assert suite.run().ret == 1
    assert suite.claim("squares")["verdict"] == "broken"
    assert "no case met the hypothesis" in suite.claim("squares")["why"]


def test_a_violated_check_leaves_no_verdict_and_fails_the_run(suite):
    suite.declare(HOLDS.replace("*, power=2", "*, power=5"))
    result = suite.run()
    assert result.ret == 1
    claim = suite.claim("squares")
    assert claim["verdict"] is None
    assert claim["checks"][0]["outcome"] == "violated"
    assert "square = -32, must be at least 0" in claim["why"]


def test_a_passing_refutation_refutes_and_with_a_repair_that_holds_amends(suite):
    suite.declare("""
    bare = claim("bare")
    mended = claim("mended", repair="x is not zero")

    def refute(bound_claim):
        @bound_claim.refutation("exact", controls={"one": {"x": 1}})
        def test_zero_has_no_positive_square(evidence, *, x=0):
            \"\"\"Zero.\"\"\"
            evidence.counterexample("zero", x=x)
            evidence.expect("square", x * x, at_most=0)
        return test_zero_has_no_positive_square

    test_bare = refute(bare)
    test_bare.__name__ = "test_bare"
    test_mended = refute(mended)
    test_mended.__name__ = "test_mended"

    @mended.check("property", controls={"zero": {"start": 0}})
    @given(x=st.integers(0, 9))
    def test_positive_squares(evidence, x, *, start=1):
        \"\"\"All others.\"\"\"
        evidence.expect("square", 0, less_than=(x + start) ** 2)
    """)
    suite.run()
    assert (suite.claim("bare")["verdict"], suite.claim("bare")["level"]) == ("refuted", "exact")
    assert (suite.claim("mended")["verdict"], suite.claim("mended")["level"]) == ("amended", "property")
    [_, check] = suite.claim("mended")["checks"]
    assert check["cases"] >= 10
    assert check["controls"][0]["smallest_case"] == {"x": "0"}


def test_an_undecided_check_is_inconclusive_and_says_what_it_would_take(suite):
    suite.declare("""
    means = claim("means")

    @means.check("statistical", controls={"negative": {"shift": -100_000}})
    def test_the_mean_is_positive(evidence, *, shift=0):
        \"\"\"A mean.\"\"\"
        evidence.mean_at_least("mean", [shift + 100, shift - 99, shift + 1], 0, alpha=1e-3)
    """)
    suite.record('["somebody2024/means"]\nverdict = "inconclusive"\n')
    assert suite.run().ret == 0
    claim = suite.claim("means")
    assert claim["verdict"] == "inconclusive"
    assert "more samples would decide it" in claim["why"]
    assert suite.results["alpha"] == {"declared": 1e-3, "budget": 0.01}


def test_a_check_that_needs_what_is_not_here_is_not_run_and_agrees_with_any_record(suite):
    suite.declare("""
    import pytest

    @pytest.fixture
    def device():
        pytest.skip("needs a GPU")

    fast = claim("fast")

    @fast.check("benchmark", controls={"slow": {"speed": 0}})
    def test_it_is_fast(evidence, device, *, speed=1):
        \"\"\"Speed.\"\"\"
        evidence.expect("speed", speed, at_least=1)
    """)
    suite.record("""
    ["somebody2024/fast"]
    verdict = "supported"
    level = "benchmark"
    measured = { date = "2026-01-01", device = "NVIDIA H200" }
    """)
    assert suite.run().ret == 0
    claim = suite.claim("fast")
    assert (claim["verdict"], claim["why"], claim["agrees"]) == ("not run", "needs a GPU", None)
    assert claim["recorded"]["measured"] == {"device": "NVIDIA H200", "date": "2026-01-01"}


def test_a_verdict_that_differs_from_the_record_fails_the_run_and_says_how(suite):
    suite.declare(HOLDS)
    suite.record('["somebody2024/squares"]\nverdict = "refuted"\nlevel = "exact"\n')
    result = suite.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["PROBLEM*supported (exact), but recorded as refuted (exact)", "PROBLEM*If this is meant: `attest accept`*"]
    )


def test_a_claim_that_the_record_never_ran_agrees_with_any_verdict(suite):
    suite.declare(HOLDS)
    suite.record('["somebody2024/squares"]\nverdict = "not run"\n')
    assert suite.run().ret == 0
    assert suite.claim("squares")["verdict"] == "supported"


def test_a_recorded_claim_that_is_no_longer_declared_fails_a_complete_run(suite):
    suite.declare(HOLDS)
    suite.record("""
    ["somebody2024/squares"]
    verdict = "supported"
    level = "exact"

    ["somebody2024/cubes"]
    verdict = "supported"
    level = "exact"
    """)
    result = suite.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["PROBLEM somebody2024/cubes: recorded, but no longer declared"])
    assert suite.run("--claim", "squares").ret == 0


def test_alphas_beyond_the_budget_fail_the_run(suite):
    suite.declare("""
    coins = claim("coins")

    @coins.check("statistical", controls={"fair": {"wins": 50}})
    def test_heads_win(evidence, *, wins=90):
        \"\"\"A coin.\"\"\"
        evidence.sign_test("heads", wins, 100, alpha=0.02)
    """)
    suite.record('["somebody2024/coins"]\nverdict = "supported"\nlevel = "statistical"\n')
    result = suite.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["PROBLEM the tests declare a false-alarm rate of 0.02*"])


def test_a_check_whose_teardown_fails_is_in_error(suite):
    suite.declare(
        HOLDS.replace("(evidence, *", "(evidence, resource, *")
        + """
import pytest

@pytest.fixture
def resource():
    yield
    raise OSError("cannot let go")
"""
    )
    assert suite.run().ret == 1
    assert suite.claim("squares")["verdict"] in (None, "broken")
    assert suite.claim("squares")["checks"][0]["outcome"] == "error"
