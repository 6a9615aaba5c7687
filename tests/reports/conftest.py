"""A small project with claims, made on the spot and run by pytest."""

import json
import textwrap
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401  # an inner run in this process forgets what it imports, and numpy refuses to load twice

import reports

BIBLIOGRAPHY = """
@article{somebody2024,
  title = {Squares},
  author = {Body, Some},
  journal = {Journal of Squares},
  year = {2024},
}
"""

HEADER = r"""
from hypothesis import strategies as st
from reports.claim import Claim, given

def claim(slug, repair="", **fields):
    given_fields = dict(where="Theorem 1", says="A statement.", formula=r"x^2 \ge 0", gap="Everything else.") | fields
    return Claim(paper="somebody2024", slug=slug, repair=repair, **given_fields)
"""


class Suite:
    """The project, and what its last run left behind."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        (self.path / "references.bib").write_text(BIBLIOGRAPHY)
        (self.path / "conftest.py").write_text('pytest_plugins = ["reports.plugin"]\n')
        (self.path / "pytest.toml").write_text('[pytest]\nstrict = true\naddopts = ["--import-mode=importlib"]\n')

    def declare(self, source: str, file: str = "test_squares.py") -> Path:
        path = self.path / "tests" / "claims" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + textwrap.dedent(source), encoding="utf-8")
        return path

    def record(self, text: str) -> None:
        path = self.path / "reports" / "verdicts.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess(*arguments)

    def run_in_a_process(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess(*arguments)

    @property
    def results(self) -> dict:
        return json.loads((self.path / "reports" / "out" / "results.json").read_text("utf-8"))

    def claim(self, slug: str) -> dict:
        return next(one for one in self.results["claims"] if one["slug"] == slug)


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(reports.__file__).parents[1]))
    return Suite(pytester)
