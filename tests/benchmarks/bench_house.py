"""A small project whose claims ask for the times of kernels, on a machine with a GPU that is made up."""

import json
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401  # an inner run in this process forgets what it imports, and numpy refuses to load twice
import torch

from benchmarks import measure, plots, records  # noqa: F401
from tests.benchmarks.planted import DEVICE, record

ROOT = Path(__file__).parents[2]
BIBLIOGRAPHY = "@article{somebody2024,\n title = {Sums},\n author = {Body, Some},\n year = {2024},\n}\n"


class House:
    """A project with one file of claims, on a machine whose GPU the test chooses."""

    def __init__(self, pytester, monkeypatch, claims, bibliography=BIBLIOGRAPHY):
        self.pytester, self.path = pytester, pytester.path
        self.folder = self.path / "kept"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *which: DEVICE)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        folder = self.path / "tests" / "claims"
        folder.mkdir(parents=True)
        (folder / "test_sum.py").write_text(claims)
        (folder / "conftest.py").write_text((ROOT / "tests" / "claims" / "conftest.py").read_text("utf-8"))
        (self.path / "references.bib").write_text(bibliography)
        (self.path / "conftest.py").write_text('pytest_plugins = ["reports.plugin"]\n')
        (self.path / "pytest.toml").write_text('[pytest]\nstrict = true\naddopts = ["--import-mode=importlib"]\n')

    def keep(self, **changes):
        """Keep a record of flash_sigmoid, as if it had been measured here and now."""
        given = {"name": "flash_sigmoid", "code": measure.code_of("flash_sigmoid")} | changes
        records.save(record(**given), records.path_of(self.folder, DEVICE, "flash_sigmoid"))

    def run_all(self, *arguments):
        """Slug of each claim -> what the run says of it."""
        assert self.pytester.runpytest_inprocess(*arguments).ret != pytest.ExitCode.INTERNAL_ERROR
        self.results = json.loads((self.path / "reports/out/results.json").read_text("utf-8"))
        return {claim["slug"]: claim for claim in self.results["claims"]}

    def run(self, *arguments):
        """The only claim, and its only check."""
        [claim] = self.run_all(*arguments).values()
        return claim, claim["checks"][0]
