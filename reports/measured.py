"""Measurements that a run on this machine does not repeat: at the papers' own sizes, or on a GPU.

`attest keep RESULTS.json` takes them out of a run, into `reports/measured/<paper>.json`, to be committed. From then on
every run shows them beside its own, with device, date, versions and seed; they change no verdict.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reports.environment import origin
from reports.files import write_whole

FOLDER = "reports/measured"
SCALES = ("small", "full")
TAKEN = ("outcome", "why", "seconds", "cases", "quantities", "tests", "counterexamples", "notes", "figures")
FINISHED = ("held", "violated", "inconclusive")


class MeasuredError(ValueError):
    """A file of measurements cannot be used, or a run has nothing to keep; the message says what to do."""


def load(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(claim, check) -> what was measured, from all files of the folder.

    Raises:
        MeasuredError: a file is not what `attest keep` writes.
    """
    found = {}
    for path in sorted((root / FOLDER).glob("*.json")):
        try:
            for one in json.loads(path.read_text("utf-8")):
                found[one["claim"], one["check"]] = one["measured"]
        except (ValueError, KeyError, TypeError) as error:
            raise MeasuredError(f"{path}: {error!r}; restore it from git, or delete it and measure again") from error
    return found


def attach(results: dict[str, Any], root: Path) -> None:
    """Give each check of a run what was measured of it elsewhere, or None."""
    found = load(root)
    for claim in results["claims"]:
        for check in claim["checks"]:
            check["measured"] = found.get((claim["key"], check["name"]))


def keep(results: dict[str, Any], root: Path) -> list[Path]:
    """Write what a run measured at full scale, or on a GPU at level benchmark; it replaces older measurements.

    Returns:
        The files written, one for each paper.

    Raises:
        MeasuredError: the run measured nothing of the kind.
    """
    kept: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for claim in results["claims"]:
        for check in claim["checks"]:
            environment, started = origin(results, check)
            if check["outcome"] in FINISHED and worth_keeping(check, environment):
                kept.setdefault(claim["paper"], {})[claim["key"], check["name"]] = {
                    "started": started,
                    "environment": environment,
                    "controls": [
                        {name: control[name] for name in ("name", "outcome")} for control in check["controls"]
                    ],
                    **{name: check[name] for name in TAKEN},
                }
    if not kept:
        raise MeasuredError("no check of this run ran at full scale or timed a GPU: run with --scale full, or on a GPU")
    earlier = load(root)
    return [_write(root, paper, earlier | new, list(new)) for paper, new in kept.items()]


def worth_keeping(check: dict[str, Any], environment: dict[str, Any]) -> bool:
    """Is it a measurement that a usual run does not make?"""
    timed = environment["device"] != "cpu" and check["level"] == "benchmark"
    return bool(timed or (check["scaled"] and environment["scale"] == "full"))


def _write(root: Path, paper: str, measured: dict[tuple[str, str], dict[str, Any]], new: list[tuple[str, str]]) -> Path:
    path = root / FOLDER / f"{paper}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = sorted(key for key in measured if key[0].split("/")[0] == paper or key in new)
    lines = [
        json.dumps({"claim": key[0], "check": key[1], "measured": measured[key]}, ensure_ascii=False, allow_nan=False)
        for key in keys
    ]
    write_whole(path, "[\n" + ",\n".join(lines) + "\n]\n")
    return path
