"""The house: which folder may import which, and what no file may hold."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_NOT_IMPORT = {
    "theory": {"torch", "empirical", "benchmarks", "reports"},
    "empirical": {"benchmarks", "reports"},
    "reports": {"torch", "theory", "empirical", "benchmarks"},
}


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", MAY_NOT_IMPORT)
def test_arrows_between_folders_point_one_way(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(file): sorted(imported(file) & MAY_NOT_IMPORT[folder]) for file in files}
    assert not {file: names for file, names in found.items() if names}


def test_the_citation_file_names_the_version_of_the_project():
    version = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    number = version.split('"')[1]
    assert f"\nversion: {number}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_constraints_pin_every_package_that_the_project_names(name):
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"]]
    for group in (*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()):
        wanted += group
    assert {one.split(">")[0].lower() for one in wanted} <= pinned
