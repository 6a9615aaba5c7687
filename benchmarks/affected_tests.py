"""Which files of tests can notice a change of a module."""

from __future__ import annotations

from pathlib import Path

from empirical.sources import modules_behind

CLAIMS, UNIT_TESTS = "tests/claims", "tests/theory"


class NoTests(LookupError):
    """Nothing tests the module; the message says what to write."""


def files_testing(root: Path, module: str) -> list[str]:
    """Files of claims that import the module, directly or not, and the unit tests of its own name.

    Raises:
        NoTests: there are none.
    """
    stem = Path(module).stem
    claims = [
        file for file in sorted((root / CLAIMS).rglob("test_*.py")) if root / module in modules_behind(root, file)
    ]
    own = sorted((root / UNIT_TESTS).rglob(f"test_{stem}*.py"))
    if not claims + own:
        raise NoTests(
            f"no test for {module}: no file in {CLAIMS} imports it, and there is no {UNIT_TESTS}/test_{stem}.py; "
            "write one of them, or leave the module out"
        )
    return [path.relative_to(root).as_posix() for path in claims + own]
