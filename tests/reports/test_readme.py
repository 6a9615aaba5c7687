"""The README's numbers are those of the record and of the measured costs."""

from pathlib import Path

import pytest

from reports import readme

ROOT = Path(__file__).parents[2]


def test_the_numbers_in_the_readme_are_the_current_ones():
    text = (ROOT / "README.md").read_text("utf-8")
    assert readme.with_numbers(text, readme.numbers(ROOT)) == text, "run `python -m reports.readme`"


def test_a_readme_without_markers_is_refused():
    with pytest.raises(readme.ReadmeError, match="put them back"):
        readme.with_numbers("# Title\n", "numbers")


def test_only_the_block_between_the_markers_changes():
    before = "a\n<!-- numbers: made -->\nold 1\n<!-- /numbers -->\nb\n"
    assert readme.with_numbers(before, "new 2\n") == "a\n<!-- numbers: made -->\nnew 2\n<!-- /numbers -->\nb\n"


def test_a_cost_that_was_not_measured_is_named(suite):
    suite.declare("")
    (suite.path / "benchmarks" / "results").mkdir(parents=True)
    (suite.path / readme.COSTS).write_text('{"environment": {"processor": "", "python": ""}, "costs": []}')
    with pytest.raises(
        readme.ReadmeError, match=r"has no 'all claims and the page': run `python -m benchmarks\.harness"
    ):
        readme.numbers(suite.path)
