"""Hypothesis profiles of our own.

Hypothesis loads a profile named `ci` by itself wherever a variable CI is set: it tries the same examples in each run
and ignores any seed. So every setting in which that profile differs from the library's default is spelled out here.
"""

from __future__ import annotations

EXAMPLES = {"quick": 100, "full": 1_000, "nightly": 10_000}
"""Profile -> examples per property. Only `nightly` keeps a database, so that the others repeat exactly from a seed."""


def load(name: str) -> None:
    """Register our profiles and make `name` the one in force."""
    from hypothesis import HealthCheck, settings
    from hypothesis.database import DirectoryBasedExampleDatabase

    for profile, examples in EXAMPLES.items():
        settings.register_profile(
            f"attest-{profile}",
            max_examples=examples,
            derandomize=False,
            database=DirectoryBasedExampleDatabase(".hypothesis/examples") if profile == "nightly" else None,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,  # two violations would arrive as a group, which is no Violation
            # `evidence` lives through all examples of a check on purpose: it keeps the closest call among them.
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
    settings.load_profile(f"attest-{name}")
