"""`python -m reports.readme`: write the numbers that stand in README.md, from the record and the measured costs.

No number in the README is typed: the block between its two markers is made here, and a test compares it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from reports import catalogue, record
from reports.files import write_whole
from reports.verdict import VERDICTS

COSTS = "benchmarks/results/costs.json"
BEGIN = "<!-- numbers:"
END = "<!-- /numbers -->"


class ReadmeError(ValueError):
    """README.md lacks its markers, or a number that belongs there was not measured."""


def main() -> int:
    root = catalogue.find_root(Path.cwd())
    path = root / "README.md"
    write_whole(path, with_numbers(path.read_text("utf-8"), numbers(root)))
    return 0


def with_numbers(text: str, block: str) -> str:
    """The README with `block` between its markers.

    Raises:
        ReadmeError: a marker is missing.
    """
    start, end = text.find(BEGIN), text.find(END)
    if not 0 <= start < end:
        raise ReadmeError(f"README.md has no line {BEGIN!r} followed by {END!r}: put them back")
    start = text.index("\n", start) + 1
    return text[:start] + block + text[end:]


def numbers(root: Path) -> str:
    """What to expect of the two commands: verdicts from the record, times as `benchmarks.harness` measured them."""
    claims = catalogue.load(root)
    recorded = record.load(root / record.RECORD)
    entries = [recorded[claim.key] for claim in claims if claim.key in recorded]
    words = ["not run" if entry["measured"] else entry["verdict"] for entry in entries]  # measured on a GPU alone
    controls = sum(len(check.controls) for claim in claims for check in claim.checks)
    measured = json.loads((root / COSTS).read_text("utf-8"))
    times = {cost["name"]: cost for cost in measured["costs"]}
    environment = measured["environment"]
    return (
        "\n| command | takes | you should see |\n| --- | --- | --- |\n"
        f"| `tox run -e report` | {_time(times, 'all claims and the page')} | `{len(words)} claims: "
        f"{_counted(words)}`, and the path of the page, `reports/out/index.html` |\n"
        f"| `tox run -e tests` | {_time(times, 'all tests')} | no failure, and the same line |\n"
        f"\nThe record holds {len(words)} claims of {len({claim.paper for claim in claims})} papers; each of their "
        f"checks has controls, {controls} in all; one that is not rejected where its check runs fails the run. "
        f"{sum(any(check.checkpoint for check in claim.checks) for claim in claims)} claims speak of pretrained models "
        f"and wait for a checkpoint of yours. {_elsewhere(entries)}Times "
        "without installing and with no model trained before, measured on "
        f"{environment['processor']}, Python {environment['python']}. "
        f"Starting `attest list` takes {_time(times, 'attest list, whole process')}; the plugin adds "
        f"{_time(times, 'plugin, per check with a control')} to a check.\n\n"
    )


def _elsewhere(entries: list[dict[str, Any]]) -> str:
    """How many claims have verdicts that were measured on a GPU, and which."""
    measured = [entry for entry in entries if entry["measured"]]
    devices = sorted({entry["measured"]["device"] for entry in measured})
    if not measured:
        return ""
    counted = _counted([entry["verdict"] for entry in measured])
    return f"{len(measured)} that are not run here have verdicts measured on {' and '.join(devices)}: {counted}. "


def _counted(words: list[str]) -> str:
    return ", ".join(f"{words.count(word)} {word}" for word in VERDICTS if word in words)


def _time(times: dict[str, Any], name: str) -> str:
    if name not in times:
        raise ReadmeError(f"{COSTS} has no {name!r}: run `python -m benchmarks.harness --json {COSTS}`")
    value, unit = times[name]["value"], times[name]["unit"]
    return f"{value / 60:.1f} min" if unit == "s" and value >= 100 else f"{value:.2g} {unit}"


if __name__ == "__main__":
    sys.exit(main())
