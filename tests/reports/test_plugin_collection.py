"""Mistakes in a declaration are collection errors that name the place and the remedy; and what a run selects."""

import pytest

GOOD = '''
squares = claim("squares")

@squares.check("exact", controls={"cube": {"power": 3}})
def test_squares_are_non_negative(evidence, *, power=2):
    """Squares of a few numbers."""
    evidence.expect("square", (-2) ** power, at_least=0)
'''


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("controls={\"cube\": {\"power\": 3}}", "controls={}"), "*it has no control; name a broken subject*"),
        (("{\"power\": 3}", "{}"), "*control 'cube' replaces nothing*"),
        (("{\"power\": 3}", "{\"exponent\": 3}"), "*replaces 'exponent', which is no keyword-only*subjects are: power"),
        (("{\"power\": 3}", "{\"power\": 2}"), "*replaces 'power' by itself*"),
        (("*, power", "power"), "*subjects are: none (put them after a bare [*])"),
        (("(evidence, *, power=2)", "(*, power=2)"), "*it must take `evidence`*"),
        (('"""Squares of a few numbers."""', "pass"), "*it has no docstring*"),
        (("def test_squares", "def squares"), "*its name must begin with test_"),
        (("\"exact\"", "\"proved\""), "*unknown level 'proved'; use one of proof, certified*"),
        (("claim(\"squares\")", "claim(\"squares\", gap='')"), "*`gap` is empty*"),
        (("claim(\"squares\")", "claim(\"Squares!\")"), "*slug 'Squares!' must be lower-case*"),
        (("claim(\"squares\")", "claim('squares', formula='\\\\frac{1}{')"), "*correct `formula`"),
        (("claim(\"squares\")", "claim(\"squares\", repair=\"x > 1\")"), "*a `repair` needs a refutation*"),
        (("claim(\"squares\")", "claim(\"squares\")\nother = claim(\"squares\")"), "*key is already used at *"),
        (("claim(\"squares\")", "claim(\"squares\")\nother = claim(\"other\")"), "*2024/other: no check is*"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_declaration_is_a_collection_error_with_place_and_remedy(suite, change, message):
    source = GOOD.replace(*change)
    assert source != GOOD
    suite.declare(source)
    result = suite.run()
    assert result.ret == 2
    result.stdout.fnmatch_lines([message])
    result.stdout.fnmatch_lines(["tests/claims/test_squares.py:*"])


def test_an_unknown_paper_is_a_collection_error(suite):
    suite.declare(GOOD)
    (suite.path / "references.bib").write_text("@article{other2024,\n}\n")
    result = suite.run()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*no entry 'somebody2024' in references.bib; add it there"])


def test_a_key_used_in_two_files_is_a_collection_error(suite):
    suite.declare(GOOD)
    suite.declare(GOOD, "test_more_squares.py")
    result = suite.run()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*the key is already used at */tests/claims/test_more_squares.py:*"])


def test_a_test_without_a_claim_among_claims_is_a_collection_error(suite):
    suite.declare(GOOD + "\ndef test_something_else():\n    pass\n")
    result = suite.run()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*test_something_else: a test in a file of claims must be bound to a claim*"])


def test_given_above_the_check_is_a_collection_error(suite):
    suite.declare(
        GOOD.replace("@squares.check", "@given(x=st.integers())\n@squares.check").replace(
            "evidence, *", "evidence, x, *"
        )
    )
    result = suite.run()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*put @<claim>.check above @given*"])


def test_given_of_hypothesis_itself_is_a_collection_error_that_names_ours(suite):
    suite.declare("from hypothesis import given\n" + GOOD.replace(
        "def test", "@given(x=st.integers())\ndef test").replace("evidence, *", "evidence, x, *"))  # fmt: skip
    result = suite.run()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*import `given` from reports.claim*"])


TWO = (
    GOOD
    + '''
cubes = claim("cubes")

@cubes.check("property", controls={"square": {"power": 2}})
@given(x=st.integers(-9, -1))
def test_cubes_keep_the_sign(evidence, x, *, power=3):
    """Cubes of negative numbers."""
    evidence.expect("cube", x**power, at_most=-1)
'''
)


@pytest.mark.parametrize(
    ("arguments", "slugs"),
    [
        (["--claim", "cubes"], ["cubes"]),
        (["--claim", "somebody2024/squares"], ["squares"]),
        (["--level", "property"], ["cubes"]),
        (["--paper", "somebody2024"], ["squares", "cubes"]),
        (["--claim", "cubes", "--claim", "squares", "--level", "exact"], ["squares"]),
    ],
)
def test_options_select_papers_claims_and_levels(suite, arguments, slugs):
    suite.declare(TWO)
    suite.run(*arguments)
    assert [claim["slug"] for claim in suite.results["claims"]] == slugs
    assert suite.results["selection"]["complete"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--claim", "cubs"], "*unknown claim 'cubs': did you mean cubes*"),
        (["--paper", "someboby2024"], "*unknown paper 'someboby2024': did you mean somebody2024?"),
        (["--level", "prof"], "*unknown level 'prof': did you mean proof*"),
        (["--claim", "zzzz"], "*unknown claim 'zzzz': `attest list` shows all"),
    ],
)
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_an_unknown_key_is_a_usage_error_that_suggests_near_names(suite, arguments, message, workers):
    suite.declare(TWO)
    result = suite.run_in_a_process(*arguments, *workers) if workers else suite.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (result.stderr if not workers else result.stdout).fnmatch_lines([message])


def test_a_check_whose_controls_were_deselected_has_not_run(suite):
    suite.declare(GOOD)
    suite.run("-k", "claim and not control")
    claim = suite.claim("squares")
    assert (claim["verdict"], claim["why"]) == ("not run", "its controls were not selected")


def test_collecting_alone_writes_no_results(suite):
    suite.declare(GOOD)
    result = suite.run("--collect-only", "-q")
    result.stdout.fnmatch_lines(["*test_squares_are_non_negative[[]claim[]]", "*[[]control: cube[]]"])
    assert not (suite.path / "reports" / "out").exists()


def test_a_run_without_claims_writes_no_results(suite):
    (suite.path / "test_plain.py").write_text("def test_plain():\n    pass\n")
    assert suite.run().ret == 0
    assert not (suite.path / "reports" / "out" / "results.json").exists()


def test_tests_carry_their_claim_into_the_junit_file(suite):
    suite.declare(GOOD)
    suite.run()
    text = (suite.path / "reports" / "out" / "junit.xml").read_text()
    assert '<property name="claim" value="somebody2024/squares"' in text
    assert '<property name="level" value="exact"' in text


def test_the_profile_of_hypothesis_itself_is_refused(suite):
    suite.declare(GOOD)
    result = suite.run("--hypothesis-profile", "default")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*use --profile quick, full or nightly*"])
