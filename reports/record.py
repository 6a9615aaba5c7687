"""The record: `reports/verdicts.toml`, the verdicts that the maintainers have accepted.

A run that disagrees with it fails, so a changed verdict is always a deliberate commit.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from reports.claim import LEVELS
from reports.environment import origin
from reports.files import write_whole
from reports.verdict import VERDICTS

RECORD = "reports/verdicts.toml"
HEADER = "# Accepted verdicts. Written by `attest accept`; a run that differs from it fails.\n"


class RecordError(ValueError):
    """The record cannot be read; the message says where and what to do."""


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Claim key -> {"verdict", "level" or None, "measured" or None}. A missing file is an empty record.

    Raises:
        RecordError: the file is no TOML, or an entry uses an unknown word.
    """
    if not path.exists():
        return {}
    try:
        entries = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: {error}; restore it from git, or delete it and run `attest accept`") from error
    return {key: _entry(path, key, entry) for key, entry in entries.items()}


def _entry(path: Path, key: str, entry: Any) -> dict[str, Any]:
    verdict, level = (entry.get("verdict"), entry.get("level")) if isinstance(entry, dict) else (None, None)
    if verdict not in VERDICTS or level not in (None, *LEVELS):
        raise RecordError(
            f"{path}: {key}: verdict {verdict!r} at level {level!r}; verdicts are {', '.join(VERDICTS)}, "
            f"levels {', '.join(LEVELS)}; correct it, or delete it and run `attest accept`"
        )
    return {"verdict": verdict, "level": level, "measured": entry.get("measured")}


def save(path: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Write the record whole, sorted by key."""
    write_whole(path, HEADER + "".join(_section(key, entries[key]) for key in sorted(entries)))


def disagreement(claim: dict[str, Any]) -> str | None:
    """How a claim of a results file differs from the record; None where it does not, or is not compared."""
    if claim["agrees"] is not False:
        return None
    recorded, now = claim["recorded"], _words(claim["verdict"], claim["level"])
    if recorded is None:
        return f"{claim['key']}: {now}, new to the record"
    return f"{claim['key']}: {now}, but recorded as {_words(recorded['verdict'], recorded['level'])}"


def agrees(claim: dict[str, Any]) -> bool | None:
    """Does the verdict equal the recorded one? None where the two cannot be compared.

    That is so where a check failed or was not run now, where the claim was never run for the record, and where it
    speaks of the user's own model.
    """
    recorded = claim["recorded"]
    if claim["verdict"] is None or any(
        check["outcome"] == "not run" or check["checkpoint"] for check in claim["checks"]
    ):
        return None
    if recorded is not None and recorded["verdict"] == "not run":
        return None
    return recorded is not None and (recorded["verdict"], recorded["level"]) == (claim["verdict"], claim["level"])


def accept(entries: dict[str, dict[str, Any]], results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The record after accepting a run.

    Claims whose checks all ran get the run's verdict; one measured on an accelerator keeps device and date. A claim
    with a check that did not run keeps its entry, and gets `not run` if it has none; so does a claim about a checkpoint
    even where it ran, as its verdict is about one user's model. Entries of claims that a complete run no longer
    declares are dropped. Raises:
        RecordError: a claim has no verdict, or is broken: that is to be mended, not accepted.
    """
    unfit = [claim["key"] for claim in results["claims"] if claim["verdict"] in (None, "broken")]
    if unfit:
        raise RecordError(f"nothing was accepted: mend these first: {', '.join(unfit)}")
    accepted = {} if results["selection"]["complete"] else dict(entries)
    for claim in results["claims"]:
        if all(check["outcome"] != "not run" and not check["checkpoint"] for check in claim["checks"]):
            accepted[claim["key"]] = {key: claim[key] for key in ("verdict", "level")} | {
                "measured": _measured(claim, results)
            }
        else:
            unrun = {"verdict": "not run", "level": None, "measured": None}
            accepted[claim["key"]] = entries.get(claim["key"], unrun)
    return accepted


def _measured(claim: dict[str, Any], results: dict[str, Any]) -> dict[str, str] | None:
    for check in claim["checks"]:
        environment, started = origin(results, check)
        if environment["device"] != "cpu":
            return {"device": environment["device"], "date": started[:10]}
    return None


def _words(verdict: str, level: str | None) -> str:
    return f"{verdict} ({level})" if level else verdict


def _section(key: str, entry: dict[str, Any]) -> str:
    lines = [f"[{_quoted(key)}]", f'verdict = "{entry["verdict"]}"']
    if entry["level"]:
        lines.append(f'level = "{entry["level"]}"')
    if entry["measured"]:
        pairs = ", ".join(f"{name} = {_quoted(text)}" for name, text in sorted(entry["measured"].items()))
        lines.append(f"measured = {{ {pairs} }}")
    return "\n" + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
