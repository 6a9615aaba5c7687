"""`results.json`: assembled from a run, read back, merged, compared. Its shape is `results.schema.json`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports import bibliography, measured, record
from reports.claim import Check, Claim
from reports.files import write_whole
from reports.verdict import judge

SCHEMA = 1
ALPHA_BUDGET = 0.01
"""False alarms that the whole suite may raise: the sum of the alphas of all its tests."""

BLANK_EVIDENCE: dict[str, Any] = {
    "cases": 0, "quantities": [], "tests": [], "counterexamples": [], "smallest_case": None, "notes": [], "figures": [],
}  # fmt: skip
KNOWN = ("name", "kind", "level", "scope", "says", "line", "scaled", "checkpoint")
"""What is known of a check before it runs."""
LOST = ("lost", "it never reported: its process died, or the run was stopped")
UNSELECTED = ("not run", "not selected")
WORST_FIRST = ("lost", "error", "no case", "violated", "inconclusive", "held", "not run")
"""Outcomes of a check; where two shards ran the same one, the worse stands."""


class ResultsError(ValueError):
    """A results file cannot be used; the message says why and what to do."""


# -- from declarations and outcomes to results ---------------------------------------------------------------------


def describe(claim: Claim, root: Path) -> dict[str, Any]:
    """What is known of a claim before anything runs: its part of the plan."""
    fields = ("key", "paper", "slug", "where", "says", "formula", "gap", "repair", "line")
    return {name: getattr(claim, name) for name in fields} | {
        "file": os.path.relpath(claim.file, root),
        "checks": [_describe_check(check) for check in claim.checks],
    }


def _describe_check(check: Check) -> dict[str, Any]:
    return {name: getattr(check, name) for name in KNOWN} | {"controls": list(check.controls)}


def node_id(file: str, check: str, control: str | None = None) -> str:
    """The test that runs a check, or one of its controls. pytest escapes all that is not printable ASCII."""
    return f"{file}::{check}[{parameter_id(control).encode('unicode_escape').decode('ascii')}]"


def parameter_id(control: str | None) -> str:
    """What stands in the brackets of a test's name."""
    return "claim" if control is None else f"control: {control}"


def fill_in(
    claim: dict[str, Any],
    outcomes: dict[str, dict[str, Any]],
    selected: set[str],
    seed: int,
    environments: list[dict[str, Any]],
) -> dict[str, Any]:
    """A planned claim with the outcomes of its tests.

    Args:
        claim: from `describe`.
        outcomes: node id -> {"outcome", "why", "seconds", "evidence", "violated", "origin"}, the last three or None.
        selected: node ids that were to run. One of them without an outcome is *lost*; any other test is `not run`.
        environments: that of the run; those in which numbers were measured that this run judges are added.
    """

    def result(node: str) -> dict[str, Any]:
        outcome, why = LOST if node in selected else UNSELECTED
        blank = {"outcome": outcome, "why": why, "seconds": 0.0, "evidence": None, "violated": None, "origin": None}
        return outcomes.get(node, blank) | {"rerun": f"pytest {shlex.quote(node)} --suite-seed {seed}"}

    checks = []
    for check in claim["checks"]:
        own = result(node_id(claim["file"], check["name"]))
        controls = []
        for name in check["controls"]:
            control = result(node_id(claim["file"], check["name"], name))
            if own["outcome"] != "not run" and control["why"] == UNSELECTED[1]:
                own |= {"outcome": "not run", "why": "its controls were not selected"}
            controls.append(_control(name, control))
        environment = own["origin"] or environments[0]
        if environment not in environments:
            environments.append(environment)
        shared = {key: check[key] for key in KNOWN}
        evidence = own["evidence"] if own["evidence"] is not None else BLANK_EVIDENCE
        ran = {key: own[key] for key in ("outcome", "why", "seconds", "rerun")}
        checks.append(
            shared
            | {"file": claim["file"], "environment": environments.index(environment), "measured": None}
            | ran
            | evidence
            | {"controls": controls}
        )
    return claim | {"checks": checks}


def _control(name: str, result: dict[str, Any]) -> dict[str, Any]:
    evidence = result["evidence"] or BLANK_EVIDENCE
    return {"name": name, "quantity": result["violated"], "smallest_case": evidence["smallest_case"]} | {
        key: result[key] for key in ("outcome", "why", "seconds", "rerun")
    }


def conclude(results: dict[str, Any], root: Path) -> dict[str, Any]:
    """Add to results what follows: verdicts, comparison with the record, papers, alphas, measurements, problems."""
    recorded = record.load(root / record.RECORD)
    for claim in results["claims"]:
        verdict = judge(claim)
        claim |= {"verdict": verdict.word, "level": verdict.level, "why": verdict.why}
        claim["recorded"] = recorded.get(claim["key"])
        claim["agrees"] = record.agrees(claim)
    tests = [test for claim in results["claims"] for check in claim["checks"] for test in check["tests"]]
    results["alpha"] = {"declared": sum(test["alpha"] for test in tests), "budget": ALPHA_BUDGET}
    results["papers"] = bibliography.papers(root, dict.fromkeys(claim["paper"] for claim in results["claims"]))
    measured.attach(results, root)
    results["problems"] = list(_problems(results, recorded))
    return results


def _problems(results: dict[str, Any], recorded: dict[str, Any]) -> Iterable[str]:
    differences = []
    for claim in results["claims"]:
        if claim["verdict"] in (None, "broken"):
            yield f"{claim['key']}: {claim['verdict'] or 'no verdict'}: {claim['why']}"
        elif difference := record.disagreement(claim):
            differences.append(difference)
    if results["selection"]["complete"]:
        gone = sorted(recorded.keys() - {claim["key"] for claim in results["claims"]})
        differences += [f"{key}: recorded, but no longer declared" for key in gone]
    yield from differences
    if differences:
        yield f"The run differs from the record. If this is meant: `attest accept`, and commit {record.RECORD}"
    declared = results["alpha"]["declared"]
    if declared > ALPHA_BUDGET:
        yield f"the tests declare a false-alarm rate of {declared:.3g} together; the budget is {ALPHA_BUDGET}"


# -- files -----------------------------------------------------------------------------------------------------------


def save(path: Path, results: dict[str, Any]) -> None:
    """Write results whole, a claim a line, so that two files can be compared line by line.

    Raises:
        ValueError: for NaN, which no part of Attest lets pass.
    """
    lines = []
    for key, value in results.items():
        text = ",\n".join(map(_compact, value)).join("[]") if isinstance(value, list) else _compact(value)
        lines.append(f"{_compact(key)}: {text}")
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def load(path: Path | str) -> dict[str, Any]:
    """Read and validate a results file.

    Raises:
        ResultsError: it is missing, no JSON, from a newer Attest, or not of the schema's shape.
    """
    try:
        results = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}; `attest run` writes one to reports/out/results.json") from error
    except ValueError as error:
        raise ResultsError(f"{path} is no JSON ({error}); it may be cut off: run again") from error
    version = results.get("schema") if isinstance(results, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise ResultsError(f"{path} has schema {version}, this Attest reads up to {SCHEMA}: update Attest")
    validate(results, str(path))
    assert isinstance(results, dict)
    return results


def validate(results: Any, name: str) -> None:
    """Raise ResultsError unless `results` has the shape of `results.schema.json`."""
    import jsonschema

    schema = json.loads(Path(__file__).with_name("results.schema.json").read_text("utf-8"))
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(results))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the top"
        raise ResultsError(f"{name} is no results file of Attest: at {place}: {error.message[:200]}")


# -- shards and differences --------------------------------------------------------------------------------------------


def merge(shards: list[dict[str, Any]], root: Path) -> dict[str, Any]:
    """One results file from several runs, such as one machine for CPU checks and one with a GPU.

    A check that ran in several shards keeps its worst outcome, so that merging hides nothing. Raises:
        ResultsError: no shards, or shards that declare the same claim differently (run on different code).
    """
    if not shards:
        raise ResultsError("nothing to merge: name at least one results file")
    merged: dict[str, dict[str, Any]] = {}
    environments: list[dict[str, Any]] = []
    for shard in shards:
        for claim in shard["claims"]:
            for check in claim["checks"]:
                check["environment"] += len(environments)
            _merge_claim(merged, claim)
        environments += shard["environments"]
    selection = {name: _union(shards, name) for name in ("papers", "claims", "levels")}
    results = {
        "schema": SCHEMA,
        "title": shards[0]["title"],
        "started": min(shard["started"] for shard in shards),
        "seconds": sum(shard["seconds"] for shard in shards),
        "command": " ; ".join(dict.fromkeys(shard["command"] for shard in shards)),
        "selection": selection | {"complete": all(shard["selection"]["complete"] for shard in shards)},
        "environments": environments,
        "claims": list(merged.values()),
    }
    return conclude(results, root)


def _merge_claim(merged: dict[str, dict[str, Any]], claim: dict[str, Any]) -> None:
    earlier = merged.setdefault(claim["key"], claim)
    if earlier is claim:
        return
    names = [[check["name"] for check in one["checks"]] for one in (earlier, claim)]
    if names[0] != names[1] or earlier["says"] != claim["says"]:
        raise ResultsError(f"{claim['key']} is declared differently in two shards: run them on the same commit")
    pairs = zip(earlier["checks"], claim["checks"], strict=True)
    earlier["checks"] = [min(pair, key=lambda check: WORST_FIRST.index(check["outcome"])) for pair in pairs]


def _union(shards: list[dict[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(item for shard in shards for item in shard["selection"][name]))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Claims whose verdict or level differs: {"claim", "old", "new"}, each side [verdict, level] or None if absent."""
    sides = [{claim["key"]: [claim["verdict"], claim["level"]] for claim in one["claims"]} for one in (old, new)]
    keys = list(dict.fromkeys([*sides[0], *sides[1]]))
    pairs = [{"claim": key, "old": sides[0].get(key), "new": sides[1].get(key)} for key in keys]
    return [pair for pair in pairs if pair["old"] != pair["new"]]
